"""Videos, and folding their frames into the batch and back."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch

from inflate.errors import InputError
from inflate.video import Video, check_num_frames, fold_frames, from_uint8, to_uint8, unfold_frames


def every_byte() -> np.ndarray:
    """``(2, 4, 8, 4, 3)``, each of the 256 levels three times, in no order."""
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3)
    return np.random.default_rng(0).permutation(levels).reshape(2, 4, 8, 4, 3)


def test_video_knows_its_sizes() -> None:
    video = Video(np.zeros((6, 2, 5, 3), np.uint8), fps=4)
    assert (video.num_frames, video.height, video.width, video.duration_seconds) == (6, 2, 5, 1.5)
    with pytest.raises(FrozenInstanceError):
        video.fps = 8  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("shape", "dtype", "fps", "message"),
    [
        ((6, 2, 5, 4), np.uint8, 8, r"uint8 of shape \(frames, height, width, 3\), got uint8 of shape \(6, 2, 5, 4\)"),
        ((2, 5, 3), np.uint8, 8, r"got uint8 of shape \(2, 5, 3\)"),
        ((6, 2, 5, 3), np.float32, 8, "got float32"),
        ((0, 2, 5, 3), np.uint8, 8, "at least one frame"),
        ((6, 2, 5, 3), np.uint8, 0, "above 0, got 0"),
        ((6, 2, 5, 3), np.uint8, float("nan"), "above 0, got nan"),
    ],
)
def test_video_refuses(shape: tuple[int, ...], dtype: Any, fps: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Video(np.zeros(shape, dtype), fps)


def test_fold_puts_the_frames_of_a_video_next_to_each_other() -> None:
    video = torch.randn(2, 3, 4, 5, 6)
    folded = fold_frames(video)
    for batch in range(2):
        for frame in range(4):
            assert torch.equal(folded[batch * 4 + frame], video[batch, :, frame])
    assert torch.equal(unfold_frames(folded, 4), video)


def test_fold_and_unfold_refuse_what_is_not_a_video() -> None:
    with pytest.raises(InputError, match=r"got shape \(2, 3, 5, 6\)"):
        fold_frames(torch.zeros(2, 3, 5, 6))
    with pytest.raises(InputError, match=r"got shape \(8, 3, 5\)"):
        unfold_frames(torch.zeros(8, 3, 5), 4)
    with pytest.raises(InputError, match="8 pictures is not whole videos of 3 frames"):
        unfold_frames(torch.zeros(8, 3, 5, 6), 3)
    with pytest.raises(InputError, match="videos of 0 frames"):
        check_num_frames(8, 0)


def test_bytes_come_back_as_they_were() -> None:
    frames = every_byte()
    video = from_uint8(frames)
    assert video.shape == (2, 3, 4, 8, 4)
    assert video.dtype == torch.float32
    assert (video.min(), video.max()) == (-1, 1)
    assert video[1, 2, 3, 4, 1] == torch.tensor(frames[1, 3, 4, 1, 2]) / 127.5 - 1
    assert np.array_equal(to_uint8(video), frames)


def test_to_uint8_clips_and_rounds_to_the_nearest_level() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0019, 1.0, torch.inf]).reshape(1, 1, 5, 1, 1).expand(1, 3, 5, 1, 1)
    assert to_uint8(values)[0, :, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(values.bfloat16().requires_grad_())[0, :, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_pixel_conversions_refuse() -> None:
    with pytest.raises(InputError, match=r"not numbers .*; if it is float32 that ran, the model's weights hold NaN"):
        to_uint8(torch.full((1, 3, 1, 2, 2), torch.nan))
    with pytest.raises(InputError, match=r"got \(1, 4, 1, 2, 2\)"):
        to_uint8(torch.zeros(1, 4, 1, 2, 2))
    with pytest.raises(InputError, match="got float64"):
        from_uint8(np.zeros((1, 1, 2, 2, 3)))
    with pytest.raises(InputError, match=r"of shape \(1, 2, 2, 3\)"):
        from_uint8(np.zeros((1, 2, 2, 3), np.uint8))
