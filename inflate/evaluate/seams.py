"""Can one see where the windows of a long video meet? Frame differences there against those everywhere else.

By definition one ordinary difference in twenty lies above the 95th percentile of ordinary ones, so seams that are like
any other place do so as often. The test is whether more of them do than chance allows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from inflate.errors import InputError
from inflate.sampling.windows import shift_of, window_starts

PERCENTILE = 95.0
_CHANCE = 1 - PERCENTILE / 100  # of an ordinary difference to lie above, and of a seamless video to fail


def window_borders(num_frames: int, window: int, overlap: int, call: int | None = None) -> list[int]:
    """Places where a window begins or ends: i stands for the step from frame i to frame i + 1, counted from 0.

    ``call`` is the evaluation (from 0) whose windows are meant, where they move from one to the next; None where they
    do not.
    """
    shift = 0 if call is None else shift_of(call, window - overlap)
    starts = window_starts(num_frames, window, overlap, shift)
    ends = (start + window for start in starts)
    return sorted({place - 1 for place in (*starts, *ends) if 0 < place < num_frames})


def frame_differences(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each two neighbouring frames: uint8 (F, H, W, 3) -> (F - 1,), pixels in [0, 1]."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) < 2:
        raise InputError(
            f"seams need a video uint8 (F, H, W, 3) of 2 frames or more, got {frames.dtype} {frames.shape}"
        )
    return np.array([np.abs(later.astype(np.int16) - sooner).mean() / 255 for sooner, later in pairwise(frames)])


@dataclass(frozen=True)
class SeamRow:
    """Seams of one video, in mean absolute differences of neighbouring frames, pixels in [0, 1].

    ``limit``: the 95th percentile of the ordinary differences, those between frames that no window's end lies between.
    """

    name: str
    seams: int
    above: int  # seams above the limit
    limit: float
    worst: float
    mean_seam: float
    mean_ordinary: float


@dataclass(frozen=True)
class SeamReport:
    """Seams of several videos; ``allowed``: so many may lie above their video's limit by chance."""

    rows: tuple[SeamRow, ...]
    allowed: int

    @property
    def seams(self) -> int:
        """Of all videos."""
        return sum(row.seams for row in self.rows)

    @property
    def above(self) -> int:
        """Seams above their own video's limit."""
        return sum(row.above for row in self.rows)

    @property
    def passes(self) -> bool:
        """Whether no more of them are than chance allows, and none is on average."""
        return self.above <= self.allowed and all(row.mean_seam <= row.limit for row in self.rows)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {**asdict(self), "seams": self.seams, "above": self.above, "passes": self.passes}


def seam_row(name: str, frames: np.ndarray, borders: Sequence[int]) -> SeamRow:
    """One video's seams.

    Args:
        name: of the video.
        frames: uint8 (F, H, W, 3).
        borders: as :func:`window_borders` gives them.

    Raises:
        InputError: not a video, no border within it, or nothing ordinary to compare with.
    """
    found = frame_differences(frames)
    at = np.zeros(len(found), dtype=bool)
    at[[border for border in borders if border < len(found)]] = True
    if not at.any() or at.all():
        raise InputError(f"{name}: {len(frames)} frames have {int(at.sum())} seams, which leaves nothing to compare.")
    seams, ordinary = found[at], found[~at]
    limit = float(np.percentile(ordinary, PERCENTILE))
    worst, above = float(seams.max()), int((seams > limit).sum())
    return SeamRow(name, len(seams), above, limit, worst, float(seams.mean()), float(ordinary.mean()))


def seam_report(rows: Sequence[SeamRow]) -> SeamReport:
    """The rows together."""
    if not rows:
        raise InputError("there is no video to look for seams in")
    return SeamReport(tuple(rows), _allowed(sum(row.seams for row in rows)))


def measure_seams(
    prompts: Sequence[str],
    generate: Callable[[str], np.ndarray],
    borders: Sequence[int],
    on_video: Callable[[], None] | None = None,
) -> SeamReport:
    """Seams of a video for each prompt: ``generate`` makes it, uint8 (F, H, W, 3), windows ending at ``borders``."""
    rows = []
    for prompt in prompts:
        rows.append(seam_row(prompt, generate(prompt), borders))
        if on_video is not None:
            on_video()
    return seam_report(rows)


def _allowed(count: int) -> int:
    """The smallest k so that at most k of ``count`` ordinary places lie above the limit, but for one time in twenty."""
    total = 0.0
    for above in range(count + 1):
        total += math.comb(count, above) * _CHANCE**above * (1 - _CHANCE) ** (count - above)
        if total >= 1 - _CHANCE:
            return above
    return count
