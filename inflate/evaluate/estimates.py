"""What one figure over a set of clips is worth: its spread over other draws of videos, and where it goes with more.

Rows are features of clips (or of frames); each belongs to a video. A video is drawn whole or not at all, for clips of
one video are alike and would make a figure look surer than it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inflate.errors import InputError

LEVEL = 0.95
_DEVIATIONS = 1.959963984540054  # of a normal distribution, on both sides of LEVEL
_SIZES, _DRAWS = 10, 5  # subsets for a line in 1/N: as many sizes, and draws of each
# Covariances of fewer rows than this many times their width do not follow the law that the line assumes.
_ROWS_PER_FEATURE = 2.0
_SMALLEST_SHARE, _LARGEST_SMALLEST = 0.25, 0.8


@dataclass(frozen=True, eq=False)
class Rows:
    """Features ``(N, D)``, and the video that each row belongs to."""

    values: Tensor
    videos: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.videos):
            raise InputError(f"{len(self.videos)} videos do not fit features of shape {tuple(self.values.shape)}")
        if not self.values.isfinite().all():
            raise InputError("the feature network gave numbers that are not finite; use another --dtype or network")

    @cached_property
    def _of_video(self) -> list[list[int]]:
        found: dict[str, list[int]] = {}
        for number, video in enumerate(self.videos):
            found.setdefault(video, []).append(number)
        return [found[video] for video in sorted(found)]

    @property
    def num_videos(self) -> int:
        """How many different videos there are."""
        return len(self._of_video)

    def of_videos(self, numbers: Sequence[int]) -> Tensor:
        """The rows of these videos (numbers in the order of names; one may come twice)."""
        return self.values[[row for number in numbers for row in self._of_video[number]]]


Statistic = Callable[..., float]
"""One or two sets of features ``(N, D)`` to a figure."""


@dataclass(frozen=True)
class Interval:
    """``value - d`` to ``value + d``, d being 1.96 standard deviations of the figure over bootstrap draws of videos.

    Not the draws' own quantiles: a draw with replacement holds some 63 % of the videos, and a figure that is biased
    with few of them, as Fréchet distances are, is more so in every draw.
    """

    low: float
    high: float
    deviation: float
    level: float
    resamples: int


def bootstrap(statistic: Statistic, sets: Sequence[Rows], resamples: int = 200, seed: int = 0) -> Interval | None:
    """The interval of ``statistic(*sets)``; None without resamples, or where a set has fewer than 2 videos."""
    if resamples < 2 or any(rows.num_videos < 2 for rows in sets):
        return None
    rng = np.random.default_rng([seed, 1])
    drawn = [
        statistic(*(rows.of_videos(rng.integers(rows.num_videos, size=rows.num_videos).tolist()) for rows in sets))
        for _ in range(resamples)
    ]
    value, deviation = statistic(*(rows.values for rows in sets)), float(np.std(drawn, ddof=1))
    reach = _DEVIATIONS * deviation
    return Interval(value - reach, value + reach, deviation, LEVEL, resamples)


@dataclass(frozen=True)
class Extrapolated:
    """Where a figure goes with ever more videos: the intercept of a line in 1/N through its means over subsets."""

    value: float
    slope: float
    rows: tuple[int, ...]
    means: tuple[float, ...]


def extrapolate(statistic: Statistic, sets: Sequence[Rows], width: int = 0, seed: int = 0) -> Extrapolated | None:
    """The figure for infinitely many videos (Chong and Forsyth 2020, section 4: bias is linear in 1/N to first order).

    Every set is cut to the same share of its videos, so that the bias of each falls along the one line. The result may
    lie below 0, as an estimate without bias may.

    Args:
        statistic: of the sets' rows.
        sets: one or two.
        width: of the features a covariance is taken of, 0 for other figures: None comes back where the sets have too
            few rows for it (2.5 times as many are needed).
        seed: of the subsets.
    """
    least = min(len(rows.videos) for rows in sets)
    share = max(_SMALLEST_SHARE, _ROWS_PER_FEATURE * width / least, 4 / min(rows.num_videos for rows in sets))
    if share > _LARGEST_SMALLEST:
        return None
    rng = np.random.default_rng([seed, 2])
    sizes, means = [], []
    for part in np.linspace(share, 1, _SIZES):
        drawn, values = [], []
        for _ in range(_DRAWS if part < 1 else 1):
            cut = [rows.of_videos(_some(rng, rows.num_videos, part)) for rows in sets]
            drawn.append(len(cut[0]))
            values.append(statistic(*cut))
        sizes.append(round(float(np.mean(drawn))))
        means.append(float(np.mean(values)))
    slope, value = np.polyfit(1 / np.asarray(sizes, dtype=np.float64), means, 1)
    return Extrapolated(float(value), float(slope), tuple(sizes), tuple(means))


def _some(rng: np.random.Generator, count: int, share: float) -> list[int]:
    return rng.permutation(count)[: max(2, round(share * count))].tolist()


def kernel_distance(first: Tensor, second: Tensor, block: int = 1024) -> float:
    """Squared maximum mean discrepancy of features ``(N, D)`` and ``(M, D)`` under ``(x·y / D + 1)³``, unbiased.

    The kernel of KID (Bińkowski et al. 2018, section 4) and of KVD (Unterthiner et al. 2018); the estimator is eq. 3 of
    Gretton et al. 2012, over all pairs. It may be below 0. Float64; at most ``block`` rows of a kernel are in memory.
    """
    if first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise InputError(
            "a kernel distance needs two sets of 2 rows or more and of one width, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    x, y = first.double(), second.double()
    return _mean_kernel(x, x, block, True) + _mean_kernel(y, y, block, True) - 2 * _mean_kernel(x, y, block, False)


def _mean_kernel(x: Tensor, y: Tensor, block: int, others: bool) -> float:
    """Mean of the kernel over pairs; ``others`` leaves out each row with itself."""
    total = sum(float((part @ y.T / x.shape[1] + 1).pow(3).sum()) for part in x.split(block))
    if not others:
        return total / (len(x) * len(y))
    own = float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
    return (total - own) / (len(x) * (len(x) - 1))


def inception_score(probabilities: Tensor, splits: int = 1) -> tuple[float, float]:
    """``exp E KL(p(y|x) || p(y))`` of class probabilities ``(N, K)`` (Salimans et al. 2016): mean and deviation.

    Over ``splits`` parts in order, as published tables have it (10), the deviation that of the whole population.
    """
    if probabilities.ndim != 2 or not 1 <= splits <= len(probabilities):
        raise InputError(
            f"an Inception Score over {splits} parts needs as many rows of probabilities, "
            f"got {tuple(probabilities.shape)}"
        )
    scores = []
    for part in np.array_split(np.arange(len(probabilities)), splits):
        rows = probabilities[part].double()
        logs = rows.clamp(min=1e-300).log() - rows.mean(0).clamp(min=1e-300).log()
        scores.append(float((rows * logs).sum(1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))


def mean_of(rows: Tensor) -> float:
    """Mean over rows ``(N, 1)``, one figure for each clip."""
    return float(rows.double().mean()) if len(rows) else float(torch.nan)
