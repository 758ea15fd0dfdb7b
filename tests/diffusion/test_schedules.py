"""Schedules and their inverses over the whole range, and the same schedules as diffusers has them."""

import math
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.deprecated import KarrasVeScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from hypothesis import given
from hypothesis import strategies as st

from inflate.diffusion.schedules import (
    Level,
    cosine,
    cosine_betas,
    from_alphas_cumprod,
    from_angle,
    from_betas,
    from_log_snr,
    level_at,
    linear_betas,
    of_scheduler,
    rectified_flow,
    scaled_linear_betas,
    zero_terminal_snr,
)
from inflate.errors import InputError


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


log_snrs = st.floats(-60, 60)


@given(log_snrs)
def test_log_snr_comes_back(log_snr: float) -> None:
    level = from_log_snr(number(log_snr))
    assert float(level.log_snr) == pytest.approx(log_snr, rel=1e-12, abs=1e-12)
    assert float(level.snr) == pytest.approx(math.exp(log_snr), rel=1e-9)
    assert float(level.alpha**2 + level.sigma**2) == pytest.approx(1, abs=1e-15)


@given(st.floats(-20, 20))
def test_log_snr_and_angle_are_one_thing(log_snr: float) -> None:
    level = from_log_snr(number(log_snr))
    turned = from_angle(level.angle)
    # An angle near pi/2 holds alpha to 1e-16 of 1, and alpha is 4.5e-5 at a log-SNR of -20.
    assert float(turned.log_snr) == pytest.approx(log_snr, abs=1e-10)
    assert float(from_alphas_cumprod(level.alpha**2).log_snr) == pytest.approx(log_snr, abs=1e-6)


@given(st.floats(0, 1))
def test_the_angle_is_the_time_in_quarter_turns(time: float) -> None:
    level = cosine(number(time))
    assert float(level.angle) == pytest.approx(time * math.pi / 2, abs=1e-15)


@given(st.floats(0, math.pi / 2))
def test_angle_comes_back(angle: float) -> None:
    assert float(from_angle(number(angle)).angle) == pytest.approx(angle, abs=2e-16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_are_exact(dtype: torch.dtype) -> None:
    time = torch.tensor([0.0, 1.0], dtype=dtype)
    for level in (cosine(time), from_angle(cosine(time).angle), rectified_flow(time)):
        assert level.alpha.tolist() == [1, 0] and level.sigma.tolist() == [0, 1]
    ends = from_log_snr(torch.tensor([math.inf, -math.inf, 800.0, -800.0], dtype=dtype))
    assert ends.alpha.tolist()[:2] == [1, 0] and ends.sigma.tolist()[:2] == [0, 1]
    assert torch.isfinite(ends.angle).all() and torch.isfinite(ends.alpha).all() and torch.isfinite(ends.sigma).all()
    assert ends.angle.tolist()[0] == 0 and ends.angle[1] == torch.tensor(math.pi / 2, dtype=dtype)


def test_log_snr_falls_in_time() -> None:
    time = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert (cosine(time).log_snr.diff() < 0).all()
    for betas in (linear_betas(), scaled_linear_betas(), cosine_betas()):
        assert (from_betas(betas).log_snr.diff() < 0).all()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "betas"),
    [
        ("linear", linear_betas(1000, 0.00085, 0.012)),
        ("scaled_linear", scaled_linear_betas()),
        ("squaredcos_cap_v2", cosine_betas()),
    ],
)
def test_betas_are_those_of_diffusers(name: str, betas: torch.Tensor) -> None:
    theirs = diffusers.DDPMScheduler(beta_schedule=name, beta_start=0.00085, beta_end=0.012)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(betas.float(), theirs.betas, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(from_betas(betas).alpha.square(), theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-9)
    assert cosine_betas()[-1] == 0.999, "the cap is reached"


@pytest.mark.reference
@pytest.mark.parametrize("betas", [linear_betas(), scaled_linear_betas(), cosine_betas()])
def test_zero_terminal_snr_is_that_of_diffusers(betas: torch.Tensor) -> None:
    ours = zero_terminal_snr(betas)
    torch.testing.assert_close(ours, rescale_zero_terminal_snr(betas.clone()), rtol=1e-12, atol=1e-14)
    level = from_betas(ours)
    assert level.alpha[-1] == 0 and level.sigma[-1] == 1 and level.snr[-1] == 0
    torch.testing.assert_close(level.alpha[0], from_betas(betas).alpha[0])
    assert float(level.angle[-1]) == math.pi / 2
    assert from_betas(betas).alpha[-1] > 0, "before, some signal was left"


@pytest.mark.reference
@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_levels_of_a_scheduler_are_those_it_adds_noise_with(name: str) -> None:
    scheduler = getattr(diffusers, name)(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    levels = of_scheduler(scheduler)
    assert levels.alpha.dtype == torch.float64 and levels.alpha.shape == (1000,)
    ddpm = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    steps = torch.tensor([0, 500, 999])
    x, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    at = level_at(levels, steps).like(x)
    torch.testing.assert_close(at.alpha * x + at.sigma * eps, ddpm.add_noise(x, eps, steps))  # pyright: ignore[reportArgumentType]


@pytest.mark.reference
def test_levels_of_unclip() -> None:
    from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

    levels = of_scheduler(UnCLIPScheduler())
    torch.testing.assert_close(levels.alpha, from_betas(cosine_betas()).alpha, rtol=1e-4, atol=1e-7)


@pytest.mark.reference
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_of_flow_matching_are_those_it_mixes_with(shift: float) -> None:
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    levels = of_scheduler(scheduler)
    assert levels.alpha.shape == (1001,), "timesteps run from T sigma = 0 to T"
    scheduler.set_timesteps(7)
    x, eps = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    at = level_at(levels, scheduler.timesteps).like(x)
    theirs = scheduler.scale_noise(x, scheduler.timesteps, eps)
    torch.testing.assert_close(at.alpha * x + at.sigma * eps, theirs)
    assert any(float(step) % 1 for step in scheduler.timesteps), "fractional timesteps were met"


def test_levels_of_a_solver_that_samples_a_flow() -> None:
    solver = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    assert level_at(of_scheduler(solver), 250).alpha == 0.75


def test_a_scheduler_without_a_schedule_is_refused() -> None:
    with pytest.raises(InputError, match="KarrasVeScheduler says neither alphas_cumprod nor flow-matching sigmas"):
        of_scheduler(KarrasVeScheduler())


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("timestep", [0, 10, 11, 998])
def test_between_two_timesteps_the_share_of_the_way_decides(timestep: int, share: float) -> None:
    """In the angle ``atan2(sigma, alpha)``; and on rectified flow's line in alpha and sigma themselves."""
    curved, straight = (
        from_betas(zero_terminal_snr(cosine_betas())),
        rectified_flow(torch.linspace(0, 1, 1000).double() ** 2),
    )
    for levels, parts in (
        (curved, lambda at: [torch.atan2(at.sigma, at.alpha)]),
        (straight, lambda at: [at.alpha, at.sigma]),
    ):
        first, second = (Level(levels.alpha[number], levels.sigma[number]) for number in (timestep, timestep + 1))
        for found, one, other in zip(
            *(parts(at) for at in (level_at(levels, timestep + share), first, second)), strict=True
        ):
            torch.testing.assert_close(found, (1 - share) * one + share * other, rtol=0, atol=1e-9)


def test_between_two_timesteps_the_angle_is_linear() -> None:
    levels = from_betas(zero_terminal_snr(cosine_betas()))
    half = level_at(levels, 10.5)
    assert float(half.angle) == pytest.approx(float(levels.angle[10:12].mean()), abs=1e-14)
    mixed = level_at(levels, torch.tensor([999.0, 10.5, 5000.0]))
    assert mixed.alpha[0] == 0 and mixed.alpha[2] == 0, "the end is exact beside fractions too"


def test_a_level_multiplies_a_batch() -> None:
    level = cosine(number(0.25).repeat(2))
    assert level.like(torch.zeros(2, 3, 4)).alpha.shape == (2, 1, 1)
    assert Level(number(1), number(0)).like(torch.zeros(2, 3)).alpha.shape == ()
