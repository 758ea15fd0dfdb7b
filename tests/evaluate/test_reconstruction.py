"""Completion measured: jumps, errors and distances of clips whose new frames are off by a known amount."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.evaluate.reconstruction import (
    ALONE,
    CEILING,
    EXTENDED,
    FILLED_IN,
    TRUTH,
    known_frames,
    markdown_table,
    measure_completion,
    sheet_rows,
)

FRAMES, SIZE, STEP = 8, 4, 10
WEIGHTS = (1.0, 3.0)
# What is added to new frames, by weight: nearer and nearer, and then too far.
OFFSETS = {0.0: 40, 1.0: 20, 3.0: 60}


def pixels(pictures: Tensor) -> Tensor:
    return pictures.flatten(1)


def clip(start: int) -> np.ndarray:
    """Every frame is lighter than the last by ``STEP`` of 255."""
    level = start + STEP * np.arange(FRAMES)
    return np.broadcast_to(level[:, None, None, None], (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)


def shifted(frames: np.ndarray, known: np.ndarray, weight: float, seed: int) -> np.ndarray:
    return np.where(known[:, None, None, None], frames, frames + OFFSETS[weight]).astype(np.uint8)


def measured(**options: Any) -> Any:
    return measure_completion(shifted, [clip(0), clip(30)], WEIGHTS, pixels, **options)


def test_what_is_known() -> None:
    assert known_frames(EXTENDED, 8).tolist() == [True] * 4 + [False] * 4
    assert known_frames(FILLED_IN, 8).tolist() == [True] * 2 + [False] * 4 + [True] * 2
    assert known_frames(FILLED_IN, 4).tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="3 frames are too few"):
        known_frames(EXTENDED, 3)


def test_figures_of_frames_that_are_off_by_a_known_amount() -> None:
    report, _ = measured()
    for row in report.rows_of(EXTENDED):
        offset = 0 if row.weight is None else OFFSETS[row.weight]
        assert row.across == pytest.approx((STEP + offset) / 255) and row.inside == pytest.approx(STEP / 255)
        assert row.jump == pytest.approx(1 + offset / STEP) and row.error == pytest.approx(offset / 255)
        assert (row.frechet > 1e-6) == (offset > 0)
    filled = {row.name: row for row in report.rows_of(FILLED_IN)}
    assert list(filled) == [TRUTH, ALONE, "w_r = 1", "w_r = 3"]
    # In at offset + step, out at offset - step.
    assert filled["w_r = 1"].across == pytest.approx(20 / 255) and filled["w_r = 1"].jump == pytest.approx(2)
    assert report.best(EXTENDED).weight == 1 and report.as_dict()["best"] == {EXTENDED: 1, FILLED_IN: 1}
    assert markdown_table(report).count("\n") == 1 + len(report.rows)


def test_weights_draw_from_the_same_seeds_and_progress_is_told() -> None:
    seen: list[tuple[float, int]] = []
    steps: list[None] = []

    def complete(frames: np.ndarray, known: np.ndarray, weight: float, seed: int) -> np.ndarray:
        seen.append((weight, seed))
        return frames

    report, made = measure_completion(
        complete, [clip(0), clip(9)], (2.0,), pixels, seed=5, on_clip=lambda: steps.append(None)
    )
    assert seen == [(0.0, 5), (0.0, 6), (2.0, 5), (2.0, 6)] * 2 and len(steps) == 8
    assert set(made) == {(task, weight) for task in (EXTENDED, FILLED_IN) for weight in (0.0, 2.0)}
    frames, labels = sheet_rows(report, made, [clip(0), clip(9)], EXTENDED)
    assert len(frames) == len(labels) == 6 and labels[0] == "extended: truth"


def test_what_cannot_be_beaten_has_known_frames_as_they_are() -> None:
    report, _ = measured(through=lambda frames: frames + 7)
    row = next(row for row in report.rows if row.name == CEILING)
    assert row.error == pytest.approx(7 / 255) and row.across == pytest.approx((STEP + 7) / 255)


def test_one_clip_is_too_few() -> None:
    with pytest.raises(InputError, match="at least 2 clips, got 1"):
        measure_completion(shifted, [clip(0)], WEIGHTS, pixels)


def test_stills_have_no_motion_to_compare_with() -> None:
    still = np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8)
    report, _ = measure_completion(shifted, [still, still], (1.0,), pixels)
    assert report.alone(EXTENDED).jump == float("inf") and torch.isfinite(torch.tensor(report.alone(EXTENDED).frechet))
