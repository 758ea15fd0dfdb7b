"""Guidance's closed forms, in float64, and diffusers' own where it has one."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from inflate.diffusion.conversions import from_x, to_x
from inflate.diffusion.guidance import (
    Guidance,
    GuidanceOptions,
    OscillatingGuidance,
    classifier_free,
    dynamic_threshold,
    rescaled,
)
from inflate.diffusion.schedules import cosine
from inflate.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def test_the_papers_weight_is_the_scale_less_one() -> None:
    conditional, unconditional = draw(2, 3), draw(2, 3)
    w = 3.5
    paper = (1 + w) * conditional - w * unconditional
    torch.testing.assert_close(classifier_free(unconditional, conditional, 1 + w), paper)
    assert classifier_free(unconditional, conditional, 1) is conditional


@pytest.mark.parametrize("wanted", ["sample", "epsilon"])
def test_guidance_is_the_same_in_every_prediction(wanted: str) -> None:
    level, z, both = cosine(torch.tensor(0.4, dtype=torch.float64)), draw(2, 3), [draw(2, 3), draw(2, 3)]

    def converted(predicted: Tensor) -> Tensor:
        return from_x(z, to_x(z, predicted, level, "v_prediction"), level, wanted)

    first = converted(classifier_free(both[0], both[1], 7.0))
    others = [converted(one) for one in both]
    torch.testing.assert_close(first, classifier_free(others[0], others[1], 7.0))


def test_rescaled_guidance_is_diffusers_and_keeps_the_deviation() -> None:
    conditional, guided = draw(2, 4, 3, 5, 5), 3 * draw(2, 4, 3, 5, 5)
    torch.testing.assert_close(
        rescaled(guided, conditional, 0.7), rescale_noise_cfg(guided, conditional, guidance_rescale=0.7)
    )
    whole = rescaled(guided, conditional, 1.0)
    torch.testing.assert_close(whole.flatten(1).std(1), conditional.flatten(1).std(1))
    assert torch.equal(rescaled(guided, conditional, 0.0), guided)
    assert rescaled(torch.zeros(1, 4), draw(1, 4).float(), 0.7).isfinite().all()
    with pytest.raises(InputError, match="between 0 and 1"):
        rescaled(guided, conditional, 1.1)


def test_oscillating_guidance_is_high_then_alternates() -> None:
    guidance = OscillatingGuidance(15, 1, first=0.5)
    assert [guidance.scale(step, 8) for step in range(8)] == [15, 15, 15, 15, 1, 15, 1, 15]
    assert OscillatingGuidance(first=1).scale(7, 8) == 15 and OscillatingGuidance(first=0).scale(0, 8) == 1
    with pytest.raises(InputError, match="no step 8 of 8"):
        guidance.scale(8, 8)
    with pytest.raises(InputError, match="between 0 and 1"):
        OscillatingGuidance(first=2)


def test_the_check_number_of_dynamic_thresholding() -> None:
    x = torch.tensor([[0.5, -1, 2, -4]], dtype=torch.float64)
    assert dynamic_threshold(x, 1.0).tolist() == [[0.125, -0.25, 0.5, -1]]
    assert torch.equal(dynamic_threshold(x / 8, 1.0), x / 8), "s is never below 1"


def test_a_videos_threshold_is_one_for_all_its_frames_and_its_own() -> None:
    video = draw(2, 3, 4, 5, 5)
    video[0, :, 2] *= 10
    limit = video.abs().flatten(1).quantile(0.9, dim=1).view(2, 1, 1, 1, 1)
    made = dynamic_threshold(video, 0.9)
    torch.testing.assert_close(made, video.clamp(-limit, limit) / limit)
    assert torch.equal(made[1:], dynamic_threshold(video[1:], 0.9))
    with pytest.raises(InputError, match="between 0 and 1"):
        dynamic_threshold(video, 1.5)


def test_predictions_are_combined_in_one_place() -> None:
    unconditional, conditional = draw(2, 3, 4), draw(2, 3, 4)
    plain = unconditional + 3.0 * (conditional - unconditional)
    assert torch.equal(Guidance(3.0)(unconditional, conditional, 7), plain)
    assert Guidance(1.0, 0.7)(unconditional, conditional, 7) is conditional
    both = Guidance(3.0, 0.7)(unconditional, conditional, 7)
    torch.testing.assert_close(both, rescale_noise_cfg(plain, conditional, guidance_rescale=0.7))
    assert not torch.allclose(both, plain)


def test_a_timestep_says_whether_guidance_is_high_or_low() -> None:
    # A second order solver comes twice by each timestep but the first; a quarter of 8 steps is 2.
    times = (90.0, *(float(time) for time in range(80, 10, -10) for _ in range(2)))
    guidance = Guidance(15.0, low=1.0, timesteps=times)
    scales = [guidance.scale_at(torch.tensor(time)) for time in (90, 80, 70, 60, 50, 40, 30, 20)]
    assert scales == [15, 15, 1, 15, 1, 15, 1, 15]
    assert guidance.scale_at(71) == 1, "the nearest step"
    unconditional, conditional = draw(2, 3), draw(2, 3)
    assert guidance(unconditional, conditional, 70) is conditional
    torch.testing.assert_close(guidance(unconditional, conditional, 60), 15 * conditional - 14 * unconditional)
    assert guidance.needs_both and not Guidance(1.0, low=1.0, timesteps=times).needs_both


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_rescale": 1.5}, r"guidance_rescale must lie between 0 and 1, got 1\.5"),
        ({"guidance_oscillate": -1}, "guidance_oscillate, the low scale, must lie between 0 and 100, got -1"),
        ({"threshold": 0}, "threshold, a quantile, must be above 0 and at most 1, got 0"),
        ({"threshold": float("nan")}, "threshold, a quantile"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GuidanceOptions(**options)
