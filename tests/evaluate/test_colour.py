"""Colour that stays, colour that drifts, and why a schedule that ends with signal makes everything medium grey."""

from typing import Any, cast

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from inflate.diffusion.conversions import from_x
from inflate.diffusion.schedules import from_alphas_cumprod
from inflate.errors import InputError
from inflate.evaluate.colour import colour_drift, measure_colour
from inflate.sampling.loop import denoise

FRAMES, SIDE, SPREAD = 64, 4, 1.0


def slow_waves(frames: int = FRAMES) -> Tensor:
    """A long clip of low frequencies whose mean colour stays: (1, 3, F, 16, 16) in [0, 1]."""
    time = torch.linspace(0, 2 * torch.pi, frames)[:, None, None]
    across = torch.linspace(0, 2 * torch.pi, 17)[:-1]
    wave = 0.5 + 0.3 * torch.sin(across[None, None, :] + across[None, :, None] + time)
    return wave.expand(3, -1, -1, -1)[None].clone()


def test_a_clip_that_moves_without_changing_its_mean_colour_is_steady() -> None:
    [drift] = colour_drift(slow_waves())
    assert drift.trend < 1e-6 and drift.spread < 1e-6


@pytest.mark.parametrize("gain", [0.1, -0.02])
def test_a_clip_that_drifts_is_told(gain: float) -> None:
    clip = slow_waves()
    clip[:, 1] += torch.linspace(0, gain, FRAMES)[None, :, None, None]
    [drift] = colour_drift(clip)
    assert drift.trend == pytest.approx(abs(gain), rel=1e-3)
    assert drift.spread == pytest.approx(abs(gain) / 2, rel=1e-3)
    drifting = measure_colour(["a"], lambda name: clip, lambda name: slow_waves())
    assert not drifting.steady and drifting.offset[1] == pytest.approx(gain / 2, rel=1e-3)
    assert measure_colour(["a"], lambda name: slow_waves(), lambda name: clip).steady


def test_a_colour_that_leaves_and_comes_back_has_no_trend_and_is_told() -> None:
    clip = slow_waves()
    clip += 0.1 * torch.sin(torch.linspace(0, torch.pi, FRAMES))[None, None, :, None, None]
    [drift] = colour_drift(clip)
    assert drift.trend < 0.01 < drift.spread
    assert not measure_colour(["a"], lambda name: clip, lambda name: slow_waves()).steady


def test_one_frame_has_no_drift() -> None:
    with pytest.raises(InputError, match="2 frames or more"):
        colour_drift(torch.zeros(1, 3, 1, 4, 4))


def sampled_colours(rescaled: bool, spacing: str, kind: str, steps: int = 200) -> Tensor:
    """Mean colours (N, F) of clips sampled with the exact denoiser of clips of one grey, N(0, SPREAD^2), per clip."""
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=cast(Any, kind),
        rescale_betas_zero_snr=rescaled,
        timestep_spacing=cast(Any, spacing),
        clip_sample=False,
    )
    levels, pixels = from_alphas_cumprod(scheduler.alphas_cumprod.double()), FRAMES * SIDE * SIDE

    def predict(z: Tensor, timestep: Tensor) -> Tensor:
        level = type(levels)(levels.alpha[int(timestep)], levels.sigma[int(timestep)])
        total = z.sum(dim=(1, 2, 3, 4), keepdim=True)
        grey = level.alpha * SPREAD**2 * total / (level.alpha**2 * SPREAD**2 * pixels + level.sigma**2)
        return from_x(z, grey.expand_as(z), level, kind)

    noise = torch.randn(256, 1, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = denoise(scheduler, predict, noise, steps)
    return made.mean(dim=(1, 3, 4))


def test_colours_are_true_with_zero_terminal_snr_and_medium_grey_without() -> None:
    """The stated answer: v-prediction, zero terminal SNR, trailing timesteps."""
    usual = sampled_colours(False, "leading", "epsilon")
    answer = sampled_colours(True, "trailing", "v_prediction")
    assert float(usual.mean(1).std()) < 0.5 * SPREAD, "Stable Diffusion's schedule shrinks colours towards grey"
    assert float(answer.mean(1).std()) == pytest.approx(SPREAD, rel=0.12)
    assert (answer - answer.mean(1, keepdim=True)).abs().max() < 0.02, "and no frame's colour leaves its clip's"
