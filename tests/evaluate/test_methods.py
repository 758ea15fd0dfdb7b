"""Stages as the methods that measures compare: a network that knows the answer is perfect, shared noise is steady."""

import pytest
import torch

from inflate.evaluate.interpolation import REPEAT, measure_interpolation
from inflate.evaluate.methods import (
    interpolation_rows,
    interpolator,
    super_resolution_rows,
    upscaler,
    with_config,
    without_component,
)
from inflate.evaluate.motion import mean_frame_difference
from inflate.stages import StageSettings
from interp.stage import InterpolationStage
from superres.spatial import SpatialConfig, SpatialStage
from tests.interp.networks import Oracle, numbered_video, solver
from tests.superres import networks

ONCE = StageSettings(num_inference_steps=1)


def knowing(truth: torch.Tensor) -> InterpolationStage:
    return InterpolationStage({"interpolation_unet": Oracle(truth), "scheduler": solver()}, defaults=ONCE)


def spatial() -> SpatialStage:
    components = {"upscaler_unet": networks.tiny_unet(), "upscaler_scheduler": networks.solver()}
    return SpatialStage(components, defaults=ONCE, config=SpatialConfig(scale=2, residual_std=0.1))


@pytest.mark.reference
def test_an_interpolation_stage_that_knows_the_clip_is_perfect() -> None:
    truth = numbered_video(16, size=32)
    report = measure_interpolation({"stage": interpolator(knowing(truth))}, [(truth + 1) / 2])
    assert report.row("stage").psnr > 55 > report.best_reference.psnr and report.gain_after("stage") > 20
    rows = interpolation_rows({"stage": interpolator(knowing(truth))}, (truth + 1) / 2, 5, 24.0, 0)
    assert next(iter(rows)) == "true frames" and {REPEAT, "stage"} < set(rows)
    assert abs(rows["stage"].astype(int) - rows["true frames"]).max() <= 1


def test_the_stage_is_told_the_known_frames_only() -> None:
    truth = numbered_video(16, size=8)
    seen: list[torch.Tensor] = []

    def embed(frames: torch.Tensor) -> torch.Tensor:
        seen.append(frames)
        return torch.zeros(1, 16)

    known = torch.arange(16) % 5 == 0
    told = torch.where(known[None, None, :, None, None], (truth + 1) / 2, 0)
    interpolator(knowing(truth), None, embed)(told, known, 24.0, 0)
    torch.testing.assert_close(seen[0], truth[:, :, ::5])


def test_equal_frames_stay_equal_with_shared_noise_and_flicker_without() -> None:
    low = torch.rand(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3, -1, -1)
    stage = spatial()
    shared = upscaler(with_config(stage, shared_noise=True))(low, 8.0, 0)
    own = upscaler(with_config(stage, shared_noise=False))(low, 8.0, 0)
    assert shared.shape == (1, 3, 3, 16, 16) and 0 <= shared.min() and shared.max() <= 1
    assert float(mean_frame_difference(shared)) == 0 < float(mean_frame_difference(own))
    changed = with_config(stage, shared_noise=False)
    assert stage.config.shared_noise and changed.components["upscaler_unet"] is stage.components["upscaler_unet"]
    rows = super_resolution_rows({"SR_h": upscaler(stage)}, low, 2, 8.0, 0, degrade=torch.zeros_like)
    assert list(rows) == ["true frames", "bicubic", "SR_h"] and rows["SR_h"].shape == (3, 8, 8, 3)
    assert rows["bicubic"].max() == 0 < rows["true frames"].max()


def test_a_component_left_out() -> None:
    stage = spatial()
    plain = without_component(stage, "upscaler_scheduler")
    assert list(plain.components) == ["upscaler_unet"] and plain.config == stage.config and plain.defaults == ONCE
    assert plain.components["upscaler_unet"] is stage.components["upscaler_unet"]
