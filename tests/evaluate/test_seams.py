"""Seams are found where they are, and not where there are none."""

import numpy as np
import pytest

from inflate.errors import InputError
from inflate.evaluate.seams import frame_differences, measure_seams, seam_report, seam_row, window_borders


def walk(num_frames: int, seed: int, jumps: list[int] | None = None) -> np.ndarray:
    """A square that goes to and fro by steps of 0 to 3 pixels, 12 more at each jump, uint8 (F, 64, 64, 3)."""
    steps = np.random.default_rng(seed).integers(0, 4, num_frames)
    steps[[jump + 1 for jump in jumps or []]] += 12
    frames = np.full((num_frames, 64, 64, 3), 255, np.uint8)
    for frame, place in zip(frames, np.abs(np.cumsum(steps) % 96 - 48), strict=True):
        frame[20:36, place : place + 16] = (200, 40, 40)
    return frames


def test_borders_are_where_windows_begin_and_end() -> None:
    assert window_borders(48, 16, 0) == [15, 31]
    assert window_borders(32, 16, 8) == [7, 15, 23]
    moved = window_borders(300, 16, 8, 7)
    assert moved != window_borders(300, 16, 8) and all(0 <= border < 299 for border in moved)


def test_differences_are_in_pixels_of_one() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 255
    assert frame_differences(frames).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="seams need a video uint8"):
        frame_differences(frames[:1])


def test_a_video_without_seams_passes_and_one_with_jumps_does_not() -> None:
    borders = window_borders(300, 16, 8, 3)
    names = ["one", "two", "three"]
    smooth = measure_seams(names, lambda name: walk(300, names.index(name)), borders)
    assert smooth.passes and smooth.seams == 3 * len(borders) and smooth.above <= smooth.allowed < smooth.seams // 5
    ends = window_borders(300, 16, 0)
    jumping = measure_seams(names, lambda name: walk(300, names.index(name), ends), ends)
    assert not jumping.passes and jumping.above > 0.8 * jumping.seams
    assert jumping.as_dict()["passes"] is False
    # A few jumps among many seams are found as well: more than chance allows.
    few = seam_report([seam_row("few", walk(300, 3, borders[::6]), borders)])
    assert not few.passes and few.above < few.seams / 2


def test_a_video_with_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="leaves nothing to compare"):
        seam_row("short", walk(3, 0), [0, 1])
    with pytest.raises(InputError, match="no video"):
        seam_report([])
