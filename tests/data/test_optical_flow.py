"""Optical flow finds a known motion, and frames moved along it land where they should."""

import numpy as np
import pytest

from inflate.data.optical_flow import move_along, move_to_between, optical_flow


def blob(x: float, y: float, size: int = 64) -> np.ndarray:
    """A soft dark disc on white, its middle at (x, y)."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(columns - x, rows - y)
    return np.repeat((255 / (1 + np.exp((10 - distance) * 2))).round().astype(np.uint8)[..., None], 3, axis=2)


def test_the_flow_of_a_moving_disc_is_its_motion() -> None:
    flow = optical_flow(blob(28, 30), blob(34, 27))
    assert flow.shape == (64, 64, 2) and flow.dtype == np.float32
    # At the disc's edge, where there is something to see.
    edge = np.abs(np.hypot(*np.meshgrid(np.arange(64) - 28, np.arange(64) - 30)) - 10) < 1.5
    assert np.median(flow[edge], axis=0) == pytest.approx([6, -3], abs=0.7)


def test_a_frame_moves_by_whole_pixels_exactly_and_repeats_its_edge() -> None:
    frame = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    flow = np.zeros((6, 8, 2), np.float32)
    flow[..., 0] = 2
    moved = move_along(frame, flow)
    assert np.array_equal(moved[:, :6], frame[:, 2:]) and np.array_equal(moved[:, 6:], frame[:, [7, 7]])


def test_between_two_frames_both_come_to_the_middle() -> None:
    first, second, truth = blob(26, 32), blob(36, 32), blob(31, 32).astype(float)
    early, late = move_to_between(first, second, (optical_flow(first, second), optical_flow(second, first)), 0.5)
    still = np.abs((first.astype(float) + second) / 2 - truth).mean()
    for moved in (early, late, (early + late) / 2):
        assert np.abs(moved - truth).mean() < still / 2
    unchanged, _ = move_to_between(first, second, (optical_flow(first, second), optical_flow(second, first)), 0.0)
    assert np.array_equal(unchanged, first)
