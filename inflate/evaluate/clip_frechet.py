"""Fréchet distance of generated to real clips, in EfficientNet-Lite0 features of frames and of their change in time.

Features of single frames cannot tell a video from unrelated pictures of its thing, so a clip is described by two halves
side by side: the mean over its frames of the features ``f``, and the mean of ``|f(t + dt) - f(t)|`` over pairs of
frames ``dt`` apart, feature by feature. Things differ among each other more than one does from a moment to the next,
so each half is measured in units of its own spread, the root of its total variance over the reference's clips; else the
first would drown the second. The distance is between Gaussians of these (2 D,) descriptions, one per clip. The plain
figure over frames, and that over the second half alone, stand beside it, both in the features' own units.

``dt`` is one frame of the finished clip by default, 1/40 s where frame interpolation makes 40 frames a second, because
that is where a video that holds together differs from pictures drawn one by one: an image model whose pictures of one
thing are alike wobbles less in an eighth of a second than a real clip moves. Pairs lie evenly over a clip, and real
clips are read at the same times, as a player shows them. The values depend on the number of clips, so every set has as
many, held against the same reference: real clips of the prompted things.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inflate.errors import InputError
from inflate.evaluate.features import PictureFeatures
from inflate.evaluate.frechet import frechet_of_samples
from inflate.evaluate.retrieval import choose_names
from inflate.evaluate.things import Things, to_unit_range

GENERATED, FRAME_BY_FRAME, REAL = "the whole chain", "image model frame by frame", "other real clips"
_DRAWS = 20
_POOL = 4  # other real clips to draw from, in multiples of the number of prompts


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are looked at: ``pairs`` of frames ``step`` apart, of ``num_frames`` at ``fps``."""

    num_frames: int
    fps: float
    step: int = 1
    pairs: int = 8

    def indices(self) -> list[int]:
        """Frame numbers, those of a pair one after the other; fewer pairs where the clip has no more.

        Raises:
            InputError: the clip is too short for one pair.
        """
        last = self.num_frames - 1 - self.step
        if last < 0 or self.pairs < 1:
            raise InputError(f"{self.num_frames} frames have no pair of frames {self.step} apart; ask for more frames")
        starts = np.linspace(0, last, min(self.pairs, last + 1)).round().astype(int)
        return [int(index) for start in starts for index in (start, start + self.step)]


@dataclass(frozen=True)
class Described:
    """Features of a set of clips: of all frames ``(N P 2, D)``, their mean by clip and their mean change ``(N, D)``."""

    frames: Tensor
    mean: Tensor
    change: Tensor

    def of_clips(self, numbers: Sequence[int]) -> "Described":
        """Some of the clips."""
        each = self.frames.reshape(len(self.mean), -1, self.frames.shape[1])
        chosen = list(numbers)
        return Described(each[chosen].flatten(0, 1), self.mean[chosen], self.change[chosen])


@dataclass(frozen=True)
class FrechetRow:
    """Distances of one set of clips to the reference: by clips, by frames alone, and by change alone.

    ``lowest`` and ``highest`` are those of ``clips`` over several draws of the set; the others are means over them.
    """

    name: str
    clips: float
    frames: float
    change: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class FrechetReport:
    """All sets against real clips of the prompted things."""

    rows: tuple[FrechetRow, ...]
    prompts: tuple[str, ...]
    sampling: Sampling
    size: int
    seed: int

    def row(self, name: str) -> FrechetRow:
        """The row of one set."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def describe(clips: Sequence[np.ndarray], features: PictureFeatures, on_clip: Callable[[], None] | None) -> Described:
    """Features of clips, each uint8 ``(2 P, S, S, 3)``: pairs of frames, one after the other."""
    rows = []
    for clip in clips:
        rows.append(features(to_unit_range(clip)))
        if on_clip is not None:
            on_clip()
    each = torch.stack(rows)
    return Described(each.flatten(0, 1), each.mean(dim=1), (each[:, 1::2] - each[:, ::2]).abs().mean(dim=1))


def distances(made: Described, reference: Described) -> tuple[float, float, float]:
    """Fréchet distances by clips, by frames, and by change."""
    units = [_spread(half) for half in (reference.mean, reference.change)]
    clips = [torch.cat([one.mean.double() / units[0], one.change.double() / units[1]], 1) for one in (made, reference)]
    by_frames = frechet_of_samples(made.frames, reference.frames)
    return frechet_of_samples(*clips), by_frames, frechet_of_samples(made.change, reference.change)


def _spread(rows: Tensor) -> float:
    """Root of the total variance of rows ``(N, D)``; 1 where they are all alike."""
    return float(rows.double().var(dim=0).sum().sqrt()) or 1.0


def shrink_to(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames uint8 ``(N, S, S, 3)`` at ``side`` pixels, each the mean of a box; S must be a multiple of it."""
    if frames.shape[1] == side:
        return frames
    if frames.shape[1] % side or frames.shape[2] != frames.shape[1]:
        raise InputError(f"frames of {frames.shape[2]} x {frames.shape[1]} px cannot be brought to {side} px evenly")
    small = functional.avg_pool2d(to_unit_range(frames), frames.shape[1] // side)
    return (small * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def evaluate_frechet(
    made: Mapping[str, Sequence[np.ndarray]],
    things: Things,
    prompts: Sequence[str],
    sampling: Sampling,
    features: PictureFeatures,
    seed: int = 0,
    on_clip: Callable[[], None] | None = None,
) -> FrechetReport:
    """Each set of made clips, and as many other real clips, against real clips of the prompted things.

    Args:
        made: by name, a clip for each prompt: uint8 (2 P, S, S, 3), the frames that ``sampling`` names.
        things: the real clips, of a size that is a multiple of S or divides it.
        prompts: names of the prompted things, each with a real clip.
        sampling: which frames they are; real clips are read at the same times.
        features: pictures to features.
        seed: of the draws of other real clips, from both splits, no prompted thing among them.
        on_clip: called after each clip whose features are there (progress); see :func:`count_described`.

    Raises:
        InputError: fewer other real clips than prompts, fewer than 2 prompts, or sizes that do not fit.
    """
    side = min([things.cache.size, *(clip.shape[1] for clips in made.values() for clip in clips)])
    indices = sampling.indices()

    def real(name: str) -> np.ndarray:
        return shrink_to(things.clip_frames(name, sampling.fps, sampling.num_frames)[indices], side)

    reference = describe([real(name) for name in prompts], features, on_clip)
    pool = describe([real(name) for name in _others(things, prompts, seed)], features, on_clip)
    draw, count = Random(seed), len(prompts)
    halves = [
        distances(pool.of_clips(draw.sample(range(len(pool.mean)), count)), reference)
        for _ in range(_DRAWS if len(pool.mean) > count else 1)
    ]
    rows = [_row(REAL, halves)]
    for name, clips in made.items():
        described = describe([shrink_to(clip, side) for clip in clips], features, on_clip)
        rows.append(_row(name, [distances(described, reference)]))
    return FrechetReport(tuple(rows), tuple(prompts), sampling, side, seed)


def count_described(things: Things, prompts: Sequence[str], sets: int) -> int:
    """How many clips :func:`evaluate_frechet` describes, for progress."""
    return (1 + sets) * len(prompts) + len(_others(things, prompts, 0))


def markdown_table(report: FrechetReport) -> str:
    """The report as a markdown table, a row per set of clips."""
    lines = [
        f"| Fréchet distance to {len(report.prompts)} real clips | clips | over draws | frames alone | change alone |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report.rows:
        spread = f"{row.lowest:.2f} to {row.highest:.2f}" if row.highest > row.lowest else ""
        lines.append(f"| {row.name} | {row.clips:.2f} | {spread} | {row.frames:.2f} | {row.change:.2f} |")
    return "\n".join(lines)


def _others(things: Things, prompts: Sequence[str], seed: int) -> list[str]:
    left = sorted({*things.names("train", with_clip=True), *things.names("test", with_clip=True)} - set(prompts))
    if len(left) < len(prompts):
        raise InputError(
            f"beside the {len(prompts)} prompted things the data has {len(left)} with a clip, and as many are needed "
            "to tell how far real clips lie from real clips; ask for fewer prompts"
        )
    return choose_names(left, min(len(left), _POOL * len(prompts)), seed)


def _row(name: str, several: Sequence[tuple[float, float, float]]) -> FrechetRow:
    clips, frames, change = (sum(values) / len(several) for values in zip(*several, strict=True))
    by_clips = [values[0] for values in several]
    return FrechetRow(name, clips, frames, change, min(by_clips), max(by_clips))
