"""Reconstruction guidance against a Gaussian whose denoiser is known: sign, variable, sum, and batch company."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inflate.diffusion.reconstruction import (
    Constraint,
    down,
    draw_known,
    error_correlation,
    frames_constraint,
    langevin_step,
    reconstruction_guidance,
    smaller_constraint,
    spread_errors,
)
from inflate.diffusion.schedules import Level, cosine
from inflate.errors import InputError

# x ~ N(0, [[1, .8], [.8, 1]]), alpha = sigma = sqrt(1/2); the first element is known to be 1.
HALF = torch.tensor(0.5, dtype=torch.float64)
LEVEL = Level(HALF.sqrt(), HALF.sqrt())
COVARIANCE = torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64)
READ = HALF.sqrt() * COVARIANCE @ torch.linalg.inv(HALF * COVARIANCE + HALF * torch.eye(2, dtype=torch.float64))
Z = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
KNOWN = torch.tensor([[1.0]], dtype=torch.float64)
UNKNOWN = torch.tensor([False, True])
AT_ONE, EXACT, EXACT_WEIGHT = 0.1997735781, 0.5133651643, 2.4705882353

Guide = Callable[[Callable[[Tensor], Tensor], Tensor, float], Tensor]


def denoiser(z: Tensor) -> Tensor:
    """``E[x | z]``, exactly."""
    return z @ READ.T


def first(x: Tensor) -> Tensor:
    return x[:, :1]


def ours(network: Callable[[Tensor], Tensor], z: Tensor, weight: float) -> Tensor:
    known = KNOWN.expand(len(z), 1)
    return reconstruction_guidance(network, z, LEVEL, [Constraint(known, first, weight)], UNKNOWN).guided


def _mutant(network: Callable[[Tensor], Tensor], z: Tensor, weight: float, kind: str) -> Tensor:
    """The formula written once more, with one mistake of each kind."""
    at = z.clone().requires_grad_(True)
    x = network(at)
    error = (KNOWN - first(x)).square()
    error = torch.cat([error, 0 * error], 1).mean(1).sum() if kind == "mean for sum" else error.sum()
    if kind == "x_hat for z":
        held = x.detach().requires_grad_(True)
        [gradient] = torch.autograd.grad((KNOWN - first(held)).square().sum(), held)
    else:
        [gradient] = torch.autograd.grad(error, at)
    if kind == "z^a for z^b":
        gradient = gradient.flip(1)
    sign = 1 if kind == "sign" else -1
    factor = LEVEL.alpha.square() if kind == "alpha squared" else LEVEL.alpha
    return (x + sign * weight * factor / 2 * gradient).detach()


def holds(guide: Guide) -> bool:
    """The spec's numbers: x_tilde^b at w_r = 1, and at the weight that makes the approximation exact."""
    made = [float(guide(denoiser, Z, weight)[0, 1]) for weight in (1.0, EXACT_WEIGHT)]
    return abs(made[0] - AT_ONE) < 1e-9 and abs(made[1] - EXACT) < 1e-9


def test_the_gaussian_closed_form() -> None:
    assert denoiser(Z)[0, 1].item() == pytest.approx(-0.0134687006, abs=1e-10)
    at = Z.clone().requires_grad_(True)
    [gradient] = torch.autograd.grad((KNOWN - first(denoiser(at))).square().sum(), at)
    assert gradient[0, 1].item() == pytest.approx(-0.6031402451, abs=1e-10)
    # Of the joint Gaussian of (x^a, x^b, z): the mean of x^b given the others, and the variance of x^a given z.
    alpha, eye = LEVEL.alpha, torch.eye(2, dtype=torch.float64)
    of_z = alpha**2 * COVARIANCE + LEVEL.sigma**2 * eye
    seen = torch.cat([torch.cat([COVARIANCE[:1, :1], alpha * COVARIANCE[:1]], 1),
                      torch.cat([alpha * COVARIANCE[:, :1], of_z], 1)])  # fmt: skip
    with_b = torch.cat([COVARIANCE[1:, 0], alpha * COVARIANCE[1]])
    exact = with_b @ torch.linalg.solve(seen, torch.cat([KNOWN[0], Z[0]]))
    assert exact.item() == pytest.approx(EXACT, abs=1e-10)
    left = COVARIANCE - alpha * READ @ COVARIANCE
    assert (LEVEL.snr.reciprocal() / left[0, 0]).item() == pytest.approx(EXACT_WEIGHT, abs=1e-10)
    assert holds(ours)


@pytest.mark.parametrize("kind", ["sign", "x_hat for z", "z^a for z^b", "mean for sum", "alpha squared"])
def test_each_mistake_fails_the_closed_form(kind: str) -> None:
    assert not holds(lambda network, z, weight: _mutant(network, z, weight, kind))
    assert holds(lambda network, z, weight: _mutant(network, z, weight, "none"))


def test_a_known_part_keeps_what_the_network_says_of_it() -> None:
    assert torch.equal(ours(denoiser, Z, 5.0)[:, :1], denoiser(Z)[:, :1])


def test_without_weight_it_is_the_network_bit_for_bit_and_undifferentiated() -> None:
    def network(z: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return denoiser(z)

    assert torch.equal(ours(network, Z, 0.0), denoiser(Z))


def test_a_sample_does_not_know_its_company() -> None:
    alone = ours(denoiser, Z, 3.0)
    company = torch.cat([Z, 100 * torch.ones(3, 2, dtype=torch.float64)])
    torch.testing.assert_close(ours(denoiser, company, 3.0)[:1], alone, rtol=0, atol=1e-15)


def test_levels_of_each_sample() -> None:
    two = Level(torch.stack([LEVEL.alpha, 0 * LEVEL.alpha]), torch.stack([LEVEL.sigma, LEVEL.sigma]))
    made = reconstruction_guidance(denoiser, Z.repeat(2, 1), two, [Constraint(KNOWN.repeat(2, 1), first)], UNKNOWN)
    torch.testing.assert_close(made.guided[:1], ours(denoiser, Z, 1.0))
    assert torch.equal(made.guided[1], made.plain[1]), "alpha is 0 there"


def test_it_works_within_no_grad_and_inference_mode_and_gives_no_parameter_a_gradient() -> None:
    layer = torch.nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(READ)
        made = ours(layer, Z, 1.0)
    with torch.inference_mode():
        again = ours(denoiser, Z.clone(), 1.0)
    assert made[0, 1].item() == pytest.approx(AT_ONE, abs=1e-9) and torch.equal(made, again.clone())
    assert layer.weight.grad is None and not made.requires_grad


def video(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_frames_and_a_smaller_video_in_one_pass_are_the_sum_of_both() -> None:
    mixing = video(4, 4)
    z, x = video(2, 3, 4, 4, 4), video(2, 3, 4, 4, 4)
    mask = torch.tensor([True, False, True, False])
    frames, small = frames_constraint(x, mask, 2.0), smaller_constraint(down(x, 2, 2), 5.0)
    calls = []

    def network(sample: Tensor) -> Tensor:
        calls.append(1)
        return torch.einsum("bcfhw,fg->bcghw", sample, mixing).tanh()

    both = reconstruction_guidance(network, z, LEVEL, [frames, small])
    assert len(calls) == 1
    each = [reconstruction_guidance(network, z, LEVEL, [one]) for one in (frames, small)]
    torch.testing.assert_close(both.guided, both.plain + sum(one.guided - one.plain for one in each))
    moved = (each[1].guided - each[1].plain).abs().sum((0, 1, 3, 4))
    assert bool((moved > 0).all()), "eq. 8 takes the gradient of all of z"


def test_what_is_known_as_pixels_goes_through_the_decoder_with_checkpointing_or_not() -> None:
    z, pixels = video(1, 3, 4, 4, 4), video(1, 3, 4, 8, 8)
    mask = torch.tensor([True, True, False, False])
    made = [0]

    def decode(latents: Tensor) -> Tensor:
        made[0] += 1
        return latents.sin().repeat_interleave(2, -1).repeat_interleave(2, -2)

    def guided(save_memory: bool) -> Tensor:
        constraint = frames_constraint(pixels, mask, 1.0, decode, save_memory)
        return reconstruction_guidance(lambda x: x.cumsum(2), z, LEVEL, [constraint]).guided

    plain = guided(False)
    assert made == [1] and torch.equal(guided(True), plain) and made == [3]


def test_shapes_that_do_not_agree_are_told() -> None:
    with pytest.raises(InputError, match=r"What is known has shape \(1, 2\)"):
        reconstruction_guidance(denoiser, Z, LEVEL, [Constraint(Z, first)])


def test_replacement_draws_have_the_moments_of_q() -> None:
    level = cosine(torch.tensor(0.25, dtype=torch.float64))
    drawn = draw_known(torch.full((200_000,), 0.7, dtype=torch.float64), level, video(200_000))
    assert drawn.mean().item() == pytest.approx(0.7 * level.alpha.item(), abs=5e-3)
    assert drawn.var().item() == pytest.approx(level.sigma.item() ** 2, rel=1e-2)


def test_langevin_steps_stay_in_the_marginal() -> None:
    z = draw_known(torch.zeros(100_000, 1, dtype=torch.float64), LEVEL, video(100_000, 1))
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        z = langevin_step(z, torch.zeros_like(z), LEVEL, noise, 0.1)
    # of step delta the stationary variance is sigma^2 / (1 - delta / 4)
    assert z.var().item() == pytest.approx(0.5 / (1 - 0.025), rel=0.02) and abs(z.mean().item()) < 0.01


def test_spread_errors_are_the_posterior_mean_of_gaussian_frames_with_noise_in_common() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, pixels = 6, 5
    prior = error_correlation(frames, 8.0, 0.3, 0.2)
    noise = 0.7 * torch.ones(frames, frames, dtype=torch.float64) + 0.3 * torch.eye(frames, dtype=torch.float64)
    alpha, sigma = 0.6, 0.8
    root = torch.linalg.cholesky(torch.stack([prior, noise]))
    drawn = torch.randn(2, frames, pixels, dtype=torch.float64, generator=generator)
    x, eps = root @ drawn
    z = alpha * x + sigma * eps
    gain = alpha * prior @ torch.linalg.inv(alpha**2 * prior + sigma**2 * noise)
    x_hat, posterior = gain @ z, prior - alpha * gain @ prior
    mask = torch.tensor([True, False, True, False, False, True])
    # The mean of x^b given all of z and x^a, from their joint covariance alone.
    at, seen = torch.arange(frames)[mask], frames + int(mask.sum())
    joint = torch.zeros(seen, seen, dtype=torch.float64)
    joint[:frames, :frames] = alpha**2 * prior + sigma**2 * noise
    joint[:frames, frames:] = alpha * prior[:, at]
    joint[frames:, :frames] = joint[:frames, frames:].T
    joint[frames:, frames:] = prior[at][:, at]
    with_x = torch.cat([alpha * prior, prior[:, at]], 1)
    exact = with_x @ torch.linalg.solve(joint, torch.cat([z, x[mask]]))

    def guided(weight: float, covariance: Tensor = posterior) -> Tensor:
        made = spread_errors(
            x_hat.view(1, 1, frames, 1, pixels), x.view(1, 1, frames, 1, pixels), mask, covariance, weight
        )
        return made.view(frames, pixels)

    torch.testing.assert_close(guided(1.0)[~mask], exact[~mask], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(guided(1.0, 7 * posterior), guided(1.0))
    assert torch.equal(guided(1.0)[mask], x_hat[mask]) and torch.equal(guided(0.0), x_hat)
    for wrong in (guided(-1.0), guided(1.0, noise), guided(1.0, prior), guided(0.5)):
        assert (wrong[~mask] - exact[~mask]).abs().max() > 0.01


def test_errors_of_frames_correlate_less_with_time_and_bad_numbers_are_told() -> None:
    found = error_correlation(16, 8.0)
    assert torch.equal(found, found.T) and torch.equal(found.diagonal(), torch.ones(16, dtype=torch.float64))
    assert bool((found[0, 1:] < found[0, :-1]).all()) and float(torch.linalg.eigvalsh(found)[0]) > 0
    torch.testing.assert_close(error_correlation(4, 24.0)[0, 3], error_correlation(4, 8.0)[0, 1])
    for far, seconds, fps in ((1.0, 1.0, 8.0), (-0.1, 1.0, 8.0), (0.5, 0.0, 8.0), (0.5, 1.0, 0.0)):
        with pytest.raises(InputError, match="cannot correlate so"):
            error_correlation(4, fps, far, seconds)
