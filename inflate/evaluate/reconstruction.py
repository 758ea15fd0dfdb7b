"""Does reconstruction guidance beat replacement alone? Clips extended and filled in, by weight, beside the truth.

Each clip is uint8 ``(F, S, S, 3)``; the first half is known and the second drawn ("extended"), or the first and last
quarter are known and the middle is drawn ("filled in"). Every weight draws from the same noise. Replacement alone is
weight 0 (VDM, arXiv:2204.03458, section 3.1, compares them so).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from inflate.errors import InputError
from inflate.evaluate.clip_frechet import describe, distances
from inflate.evaluate.features import PictureFeatures
from inflate.evaluate.seams import frame_differences

EXTENDED, FILLED_IN = "extended", "filled in"
TRUTH, CEILING, ALONE = "truth", "truth through the autoencoder", "replacement alone"
Complete = Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]
"""``(frames uint8 (F, S, S, 3), known (F,) bool, weight, seed)`` to all frames, the known ones as given."""


@dataclass(frozen=True)
class CompletionRow:
    """One weight at one task.

    ``frechet``: distance of the clips to the true ones, of frames with a new one in their pair (``clip_frechet``).
    ``jump``: mean absolute difference across the boundaries of new and known frames over that of all other
    neighbours. ``across`` and ``inside`` are the two, pixels in [0, 1], means over clips. ``error``: mean absolute
    difference of new frames from the true ones.
    """

    task: str
    name: str
    weight: float | None  # None: nothing was drawn
    frechet: float
    jump: float
    across: float
    inside: float
    error: float


@dataclass(frozen=True)
class CompletionReport:
    """All weights at both tasks, on the same clips and noise."""

    rows: tuple[CompletionRow, ...]
    clips: int
    num_frames: int
    seed: int

    def rows_of(self, task: str) -> list[CompletionRow]:
        """The rows of one task."""
        return [row for row in self.rows if row.task == task]

    def alone(self, task: str) -> CompletionRow:
        """Replacement alone."""
        return next(row for row in self.rows_of(task) if row.weight == 0)

    def best(self, task: str) -> CompletionRow:
        """Of the weights that beat replacement both in distance and in jump, the one nearest to the truth.

        Where none does, the one nearest to the truth of all.
        """
        drawn = [row for row in self.rows_of(task) if row.weight is not None]
        alone = self.alone(task)
        better = [row for row in drawn if row.frechet < alone.frechet and row.jump < alone.jump]
        return min(better or drawn, key=lambda row: row.frechet)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {**asdict(self), "best": {task: self.best(task).weight for task in (EXTENDED, FILLED_IN)}}


def known_frames(task: str, num_frames: int) -> np.ndarray:
    """Which frames are given, (F,) bool.

    Raises:
        InputError: fewer than 4 frames.
    """
    if num_frames < 4:
        raise InputError(f"{num_frames} frames are too few to be completed; use 4 or more.")
    known, quarter = np.ones(num_frames, dtype=bool), num_frames // 4
    known[slice(num_frames // 2, None) if task == EXTENDED else slice(quarter, num_frames - quarter)] = False
    return known


def measure_completion(
    complete: Complete,
    truths: Sequence[np.ndarray],
    weights: Sequence[float],
    features: PictureFeatures,
    seed: int = 0,
    on_clip: Callable[[], None] | None = None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[CompletionReport, dict[tuple[str, float], list[np.ndarray]]]:
    """Complete every clip at every weight, for both tasks.

    Args:
        complete: see ``Complete``; clip number n is drawn from ``seed + n``, whatever the weight.
        truths: at least 2 true clips of one shape.
        weights: ``w_r``; 0 is added.
        features: of pictures, for the Fréchet distance.
        seed: of the first clip.
        on_clip: called after each clip (progress).
        through: frames (F, S, S, 3) through the autoencoder and back; a row for what cannot be beaten.

    Returns:
        The figures, and what was made by task and weight.

    Raises:
        InputError: too few clips or frames.
    """
    if len(truths) < 2:
        raise InputError(f"a Fréchet distance needs at least 2 clips, got {len(truths)}")
    rows, made = [], {}
    for task in (EXTENDED, FILLED_IN):
        known = known_frames(task, len(truths[0]))
        rows.append(_row(task, TRUTH, None, truths, truths, known, features))
        if through is not None:
            coded = [np.where(known[:, None, None, None], truth, through(truth)) for truth in truths]
            rows.append(_row(task, CEILING, None, coded, truths, known, features))
        for weight in sorted({0.0, *weights}):
            clips = []
            for number, truth in enumerate(truths):
                clips.append(complete(truth, known, weight, seed + number))
                if on_clip is not None:
                    on_clip()
            made[task, weight] = clips
            name = f"w_r = {weight:g}" if weight else ALONE
            rows.append(_row(task, name, weight, clips, truths, known, features))
    return CompletionReport(tuple(rows), len(truths), len(truths[0]), seed), made


def _row(
    task: str,
    name: str,
    weight: float | None,
    clips: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    known: np.ndarray,
    features: PictureFeatures,
) -> CompletionRow:
    border = known[1:] != known[:-1]
    with_new = np.flatnonzero(~(known[1:] & known[:-1]))
    pairs = np.stack([with_new, with_new + 1], axis=1).flatten()
    described = [describe([clip[pairs] for clip in group], features, None) for group in (clips, truths)]
    differences = np.stack([frame_differences(clip) for clip in clips])
    across, inside = float(differences[:, border].mean()), float(differences[:, ~border].mean())
    error = np.abs(np.stack(clips).astype(np.int16) - np.stack(truths))[:, ~known].mean() / 255
    jump = across / inside if inside else float("inf")
    return CompletionRow(task, name, weight, distances(*described)[0], jump, across, inside, float(error))


def markdown_table(report: CompletionReport) -> str:
    """The figures as Markdown."""
    lines = [
        "| | Fréchet distance | jump at the boundary | across it | elsewhere | error of new frames |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report.rows:
        numbers = f"{row.frechet:.2f} | {row.jump:.2f} | {row.across:.4f} | {row.inside:.4f} | {row.error:.4f}"
        lines.append(f"| {row.task}: {row.name} | {numbers} |")
    return "\n".join(lines)


def sheet_rows(
    report: CompletionReport,
    made: Mapping[tuple[str, float], Sequence[np.ndarray]],
    truths: Sequence[np.ndarray],
    task: str,
    clips: int = 2,
) -> tuple[list[np.ndarray], list[str]]:
    """Frames and labels of a contact sheet: truth, replacement alone and the best weight, of the first clips."""
    best = report.best(task)
    assert best.weight is not None, "the truth is no candidate"
    frames, labels = [], []
    for number in range(min(clips, len(truths))):
        frames += [truths[number], made[task, 0.0][number], made[task, best.weight][number]]
        labels += [f"{task}: {TRUTH}", f"{task}: {ALONE}", f"{task}: {best.name}"]
    return frames, labels
