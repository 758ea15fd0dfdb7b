"""The kernels between two times: every number of E1 to E6 and E11, and how the kernels fit together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inflate.diffusion import processes as p
from inflate.diffusion.conversions import eps_from_x, x_from_v
from inflate.diffusion.schedules import Level, cosine, from_angle, from_log_snr

ONE = torch.ones((), dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)


def at(time: float) -> Level:
    return cosine(torch.tensor(time, dtype=torch.float64))


def close(value: Tensor, expected: float, within: float = 1e-10) -> None:
    assert float(value) == pytest.approx(expected, abs=within)


S, T = at(0.25), at(0.75)


def test_the_numbers_of_e1_and_e2() -> None:
    made = p.forward(ONE, S, T)
    close(made.mean, 0.4142135624)
    close(made.variance, 0.8284271247)
    # The other form of the variance, from log-SNR.
    close((1 - (T.log_snr - S.log_snr).exp()) * T.sigma**2, 0.8284271247)
    close(made.mean**2 * S.sigma**2 + made.variance, 0.8535533906)
    close(p.marginal(ONE, T).variance, 0.8535533906)
    close(p.marginal(2 * ONE, T).mean, 2 * math.cos(3 * math.pi / 8))


def test_the_numbers_of_e3() -> None:
    of_z, of_x = p.posterior(ONE, ZERO, S, T), p.posterior(ZERO, ONE, S, T)
    close(of_z.mean, 0.0710678119)
    close(of_x.mean, 0.8966830583)
    close(of_z.variance, 0.1421356237)
    close(of_z.mean * T.alpha + of_x.mean, 0.9238795325)
    close(of_z.mean**2 * T.sigma**2 + of_z.variance, 0.1464466094)
    # As the paper writes it, with r = exp(lambda_t - lambda_s).
    r = (T.log_snr - S.log_snr).exp()
    close(r * S.alpha / T.alpha, 0.0710678119)
    close((1 - r) * S.sigma**2, 0.1421356237)


def test_the_ancestral_variance_is_between_its_bounds_in_log_space() -> None:
    least, most = p.posterior(ONE, ONE, S, T).variance, p.forward(ONE, S, T).variance
    close(p.ancestral(ONE, ONE, S, T, 0.0).variance, float(least))
    close(p.ancestral(ONE, ONE, S, T, 1.0).variance, float(most))
    close(p.ancestral(ONE, ONE, S, T, 0.3).variance, 0.1421356237**0.7 * 0.8284271247**0.3, 1e-9)
    close(p.ancestral(ONE, 2 * ONE, S, T, 0.3).mean, float(p.posterior(ONE, 2 * ONE, S, T).mean))
    for gamma in (0.0, 0.3, 1.0):
        last = p.ancestral(ONE, 2 * ONE, at(0.0), T, gamma)
        assert last.variance == 0 and last.mean == 2, "at the clean end x is what is left"


def test_the_numbers_of_e5() -> None:
    t, s = (from_angle(torch.tensor(math.pi / part, dtype=torch.float64)) for part in (3, 6))
    z, v = t.alpha * 2 - t.sigma, -t.alpha - t.sigma * 2
    close(p.angular_ddim(z, v, s, t), 1.2320508076)
    x = x_from_v(z, v, t)
    close(p.ddim(z, x, eps_from_x(z, x, t), s), 1.2320508076)


def test_the_numbers_of_e6() -> None:
    x, eps, x_made = (torch.tensor(value, dtype=torch.float64) for value in (2.0, -1.0, 1.5))
    level = at(0.3)
    z = level.alpha * x + level.sigma * eps
    eps_made = eps_from_x(z, x_made, level)
    v_error = (level.alpha * (eps - eps_made) - level.sigma * (x - x_made)) ** 2
    close((eps - eps_made) ** 2, float(level.snr * (x - x_made) ** 2))
    close(v_error, float((1 + level.snr) * (x - x_made) ** 2))
    close(v_error, float((x - x_made) ** 2 + (eps - eps_made) ** 2))


def test_the_numbers_of_e11() -> None:
    t, middle, s = at(1.0), at(0.75), at(0.5)
    z, first, second = (torch.tensor(value, dtype=torch.float64) for value in (-0.4, 0.7, 0.5))
    halfway = p.ddim(z, first, eps_from_x(z, first, t), middle)
    end = p.ddim(halfway, second, eps_from_x(halfway, second, middle), s)
    close(end, 0.1292893219)
    target = p.distillation_target(z, end, s, t)
    close(target, 0.5828427125)
    close(p.ddim(z, target, eps_from_x(z, target, t), s), 0.1292893219)
    close(p.distillation_target(z, second, at(0.0), t), 0.5)


pairs = st.tuples(st.floats(-60, 60), st.floats(1e-6, 60))


def two(pair: tuple[float, float]) -> tuple[Level, Level]:
    low, above = pair
    t, s = (from_log_snr(torch.tensor(value, dtype=torch.float64)) for value in (low, low + above))
    return s, t


@given(pairs)
def test_forward_after_marginal_is_the_marginal(pair: tuple[float, float]) -> None:
    s, t = two(pair)
    kernel = p.forward(s.alpha, s, t)  # of z_s = alpha_s, that is x = 1
    torch.testing.assert_close(kernel.mean, t.alpha, rtol=1e-12, atol=0)
    kept = t.alpha / s.alpha
    torch.testing.assert_close(kept**2 * s.sigma**2 + kernel.variance, t.sigma**2, rtol=1e-12, atol=0)


@given(pairs)
def test_posterior_after_marginal_is_the_marginal(pair: tuple[float, float]) -> None:
    s, t = two(pair)
    of_z, of_x = p.posterior(ONE, ZERO, s, t), p.posterior(ZERO, ONE, s, t)
    torch.testing.assert_close(of_z.mean * t.alpha + of_x.mean, s.alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_z.mean**2 * t.sigma**2 + of_z.variance, s.sigma**2, rtol=1e-12, atol=0)


@given(pairs)
def test_bayes_joins_forward_and_posterior(pair: tuple[float, float]) -> None:
    # 1 / var of q(z_s | z_t, x) = 1 / sigma_s^2 + kept^2 / sigma_{t|s}^2, the product of two normals.
    s, t = two(pair)
    kept = t.alpha / s.alpha
    precision = 1 / s.sigma**2 + kept**2 / p.forward_variance(s, t)
    torch.testing.assert_close(p.posterior(ONE, ONE, s, t).variance * precision, ONE, rtol=1e-9, atol=0)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-5, 5), st.floats(-5, 5))
def test_angular_ddim_is_ddim(first: float, second: float, x: float, eps: float) -> None:
    t, s = (from_log_snr(torch.tensor(value, dtype=torch.float64)) for value in (first, second))
    clean, noise = (torch.tensor(value, dtype=torch.float64) for value in (x, eps))
    z, v = t.alpha * clean + t.sigma * noise, t.alpha * noise - t.sigma * clean
    torch.testing.assert_close(p.angular_ddim(z, v, s, t), p.ddim(z, clean, noise, s), rtol=1e-12, atol=1e-12)


@given(st.floats(0.01, 1), st.floats(0, 0.99), st.floats(-5, 5), st.floats(-5, 5))
def test_one_step_with_the_target_lands_where_the_teacher_did(start: float, share: float, z: float, x: float) -> None:
    t, s = at(start), at(start * share)
    here, there = (torch.tensor(value, dtype=torch.float64) for value in (z, x))
    target = p.distillation_target(here, there, s, t)
    torch.testing.assert_close(p.ddim(here, target, eps_from_x(here, target, t), s), there, rtol=1e-9, atol=1e-9)


@given(st.floats(0.05, 1.9))
def test_the_corrector_keeps_a_level(delta: float) -> None:
    # Of N(0, sigma^2) the exact eps is z / sigma, so the variance goes to sigma^2 ((1 - delta / 2)^2 + delta): up by
    # delta^2 / 4 of itself per step, and to nothing else.
    level, z = at(0.6), torch.tensor(1.3, dtype=torch.float64)
    eps = z / level.sigma
    mean = p.langevin(z, eps, level, ZERO, delta)
    spread = p.langevin(z, eps, level, ONE, delta) - mean
    torch.testing.assert_close(mean, (1 - delta / 2) * z)
    variance = (mean / z) ** 2 * level.sigma**2 + spread**2
    torch.testing.assert_close(variance, level.sigma**2 * (1 + delta**2 / 4))


def test_samples_have_the_moments_that_are_said() -> None:
    noise = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = p.posterior(ONE.expand(200_000), ONE, S, T).sample(noise)
    close(made.mean(), 0.0710678119 + 0.8966830583, 5e-3)
    close(made.var(), 0.1421356237, 2e-3)


def test_finite_at_both_ends() -> None:
    clean, pure = at(0.0), at(1.0)
    for s, t in ((clean, T), (S, pure), (clean, pure), (T, T)):
        for made in (p.forward(ONE, s, t), p.posterior(ONE, ONE, s, t), p.ancestral(ONE, ONE, s, t, 0.3)):
            assert torch.isfinite(made.mean) and torch.isfinite(made.variance) and made.variance >= 0
        assert torch.isfinite(p.angular_ddim(ONE, ONE, s, t))
    assert p.forward_variance(T, T) == 0 and p.angular_ddim(ONE, ONE, T, T) == 1
