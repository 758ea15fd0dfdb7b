import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.motion import falls_with_frame_rate, mean_frame_difference, measure_motion, motion_row


def ramp(step: float, frames: int = 4) -> torch.Tensor:
    """A grey clip that brightens by ``step`` each frame."""
    return (torch.arange(frames, dtype=torch.float64) * step).view(1, 1, frames, 1, 1).expand(1, 3, frames, 2, 2)


def test_frame_difference_by_hand():
    video = torch.cat([ramp(0.1), ramp(0.0)])
    assert mean_frame_difference(video).tolist() == pytest.approx([0.1, 0.0])
    one_pixel = torch.zeros(1, 1, 3, 2, 2)
    one_pixel[0, 0, 1, 0, 0] = 1.0  # on, then off: two changes of 1 among 2 steps x 4 pixels
    assert mean_frame_difference(one_pixel).item() == pytest.approx(0.25)


def test_motion_must_fall_strictly_as_the_frame_rate_rises():
    assert falls_with_frame_rate({30: 0.1, 4: 0.4, 8: 0.3})
    assert not falls_with_frame_rate({4: 0.4, 8: 0.4})
    assert not falls_with_frame_rate({4: 0.1, 8: 0.4})


@pytest.mark.parametrize(("generated", "within"), [(0.49, False), (0.5, True), (2.0, True), (2.01, False)])
def test_ratio_bounds(generated: float, within: bool):
    row = motion_row(8.0, [generated], [1.0])
    assert row.ratio == pytest.approx(generated)
    assert row.within_bounds is within


def test_report_compares_like_with_like():
    seen = []

    def generated(name: str, fps: float) -> torch.Tensor:
        seen.append((name, fps))
        return ramp((0.4 if name == "a" else 0.8) / fps)

    report = measure_motion(["a", "b"], generated, lambda name, fps: ramp(0.6 / fps), frame_rates=(4.0, 8.0))
    assert seen == [("a", 4.0), ("a", 8.0), ("b", 4.0), ("b", 8.0)]
    assert [row.ratio for row in report.rows] == pytest.approx([1.0, 1.0])
    assert [row.generated for row in report.rows] == pytest.approx([0.15, 0.075])
    assert report.passes and report.real_falls_with_fps
    assert report.as_dict()["passes"] is True

    frozen = measure_motion(["a"], lambda name, fps: ramp(0.1), lambda name, fps: ramp(0.6 / fps), (4.0, 8.0))
    assert not frozen.generated_falls_with_fps
    assert not frozen.passes


def test_refusals():
    with pytest.raises(InputError, match="at least 2 frames"):
        mean_frame_difference(torch.zeros(1, 3, 1, 2, 2))
    with pytest.raises(InputError, match="stand still at 8 frames"):
        motion_row(8.0, [0.1], [0.0])
    with pytest.raises(InputError, match="no clip to measure at 8"):
        motion_row(8.0, [], [])
