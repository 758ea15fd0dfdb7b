"""Measures of frames one after the other, on clips whose motion is known."""

import math

import numpy as np
import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.over_time import clip_similarity, frame_consistency, motion_magnitude, warping_error


def textured(shift: float, frames: int = 4, side: int = 64) -> np.ndarray:
    """A smooth texture that goes ``shift`` pixels to the right from frame to frame."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    made = []
    for number in range(frames):
        x = columns - shift * number
        value = np.sin(x / 3.1) + np.sin(rows / 4.3 + x / 9.7) + np.cos(rows / 2.9)
        made.append(np.stack([127 + 35 * value, 127 - 35 * value, 100 + 20 * value], -1))
    return np.stack(made).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_motion_is_the_way_that_pixels_go(shift: float) -> None:
    assert motion_magnitude(textured(shift)) == pytest.approx(shift / math.hypot(64, 64), rel=0.15)


def test_motion_is_the_same_at_every_size() -> None:
    small, large = textured(1.0), textured(1.0).repeat(2, 1).repeat(2, 2)
    assert motion_magnitude(large) == pytest.approx(motion_magnitude(small), rel=0.2)


def test_a_still_clip_neither_moves_nor_errs() -> None:
    still = textured(0.0)
    assert motion_magnitude(still) < 1e-4 and warping_error(still) < 1e-6


def test_what_flow_explains_is_no_error_and_flicker_is() -> None:
    moving, rng = textured(1.0), np.random.default_rng(0)
    steady = warping_error(moving)
    flicker = np.clip(moving + rng.normal(0, 20, moving.shape), 0, 255).astype(np.uint8)
    unrelated = rng.integers(0, 256, moving.shape, dtype=np.uint8)
    assert steady < 5e-4 < 5 * steady + 1e-3 < warping_error(flicker) < warping_error(unrelated)
    plain = float(np.square((moving[1:] - moving[:-1].astype(float)) / 255).mean())
    assert steady < plain / 10, "frames moved along the flow are nearer than as they are"


def test_what_was_covered_does_not_count() -> None:
    """A square that jumps far: flow there and back disagrees around it, and most of its error is left out."""
    clip = textured(0.0, 2)
    clip[0, 20:36, 4:20], clip[1, 20:36, 40:56] = 255, 255
    plain = float(np.square((clip[1].astype(float) - clip[0]) / 255).mean())
    assert 0 < warping_error(clip) < plain / 2


def test_neighbours_alike_and_apart() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, math.pi / 2 + 0.2])
    vectors = torch.stack([angles.cos(), angles.sin()], 1)
    assert frame_consistency(vectors) == pytest.approx((2 * math.cos(0.1) + 0) / 3, abs=1e-6)
    assert clip_similarity(vectors, torch.tensor([1.0, 0.0])) == pytest.approx(float(angles.cos().mean()), abs=1e-6)
    with pytest.raises(InputError, match="2 frames or more"):
        frame_consistency(vectors[:1])
    with pytest.raises(InputError, match="uint8"):
        warping_error(textured(1.0)[:1])
