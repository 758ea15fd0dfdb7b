"""What enlarging a video takes, said before it starts: by which stages, how large it gets, on how much disk, how long.

Any run of a chain's super-resolution stages is a way to enlarge, so one that enlarges 4 times and one that enlarges
twice do 2, 4 and 8 times; any factor below comes from the next larger one, whose frames are then shrunk by area.
"""

import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import Tensor
from torch.nn import functional

from inflate.cascade.runner import Runner
from inflate.errors import InputError
from inflate.stages import ChainState, StageSettings

USUAL_PIXELS = 4096 * 2304
"""Of the largest pictures that are made unless a factor is asked for: those of cinema's 4K."""


def scale_of(stages: Sequence[Any]) -> int:
    """How many times stages enlarge one after the other."""
    return math.prod(stage.config.scale for stage in stages)


def whole_factors(stages: Sequence[Any]) -> list[int]:
    """Factors that runs of ``stages`` have without shrinking, rising."""
    return sorted({scale_of(some) for some in _runs(stages)})


def stages_for(stages: Sequence[Any], factor: float | None) -> tuple[Any, ...]:
    """Those of ``stages`` that enlarge ``factor`` times or little more, with the fewest pixels; all for None.

    Raises:
        InputError: below 1, or more than all stages do together.
    """
    if factor is None:
        return tuple(stages)
    most = scale_of(stages)
    if not (math.isfinite(factor) and 1 <= factor <= most):
        exact = ", ".join(str(one) for one in whole_factors(stages))
        raise InputError(
            f"The factor is {factor:g}; this model enlarges 1 to {most} times (exactly {exact}; what "
            "lies between is shrunk from the next larger one)."
        )
    return min(
        (some for some in _runs(stages) if scale_of(some) >= factor), key=lambda some: (scale_of(some), len(some))
    )


def usual_factor(stages: Sequence[Any], height: int, width: int, most: int = USUAL_PIXELS) -> int:
    """The largest whole factor whose pictures have no more than ``most`` pixels, or the smallest one."""
    factors = whole_factors(stages)
    return max((one for one in factors if height * width * one**2 <= most), default=factors[0])


def _runs(stages: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    for count in range(1, len(stages) + 1):
        yield from combinations(stages, count)


def shrunk(chunks: Iterable[Tensor], scale: int, factor: float | None) -> Iterator[Tensor]:
    """Chunks (3, n, H, W) that were enlarged ``scale`` times, as if by ``factor``: each pixel the mean of its area."""
    for chunk in chunks:
        size = _size((chunk.shape[2] // scale, chunk.shape[3] // scale), scale if factor is None else factor)
        if size == tuple(chunk.shape[2:]):
            yield chunk
        else:
            yield functional.interpolate(chunk.transpose(0, 1), size, mode="area").transpose(0, 1)


def _size(given: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(given[0] * factor)), max(1, round(given[1] * factor))


@dataclass(frozen=True)
class Enlarging:
    """``num_frames`` frames of ``given`` (height, width) pixels enlarged by ``stages`` and shrunk to ``factor``."""

    stages: tuple[Any, ...]
    given: tuple[int, int]
    num_frames: int
    factor: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in the end."""
        return _size(self.given, scale_of(self.stages) if self.factor is None else self.factor)

    def made(self, number: int) -> tuple[int, int]:
        """Height and width of what the first ``number`` stages make."""
        return _size(self.given, scale_of(self.stages[:number]))

    def held_bytes(self) -> int:
        """Of all frames together as the last stage makes them, float32."""
        return math.prod(self.made(len(self.stages))) * 3 * 4 * self.num_frames

    def disk_bytes(self) -> int:
        """Most that lies in temporary files at once: frames between stages, and those that a stage puts together."""
        between = [math.prod(self.made(number)) * 3 * self.num_frames for number in range(1, len(self.stages))]
        stores = [stage.store_bytes(*self.made(number)) for number, stage in enumerate(self.stages)]
        # While a stage runs there are its own store, what it reads and what it writes.
        return max(store + sum(between[max(0, number - 1) : number + 1]) for number, store in enumerate(stores))

    def check_disk(self) -> None:
        """Raise ``InputError`` where the folder of temporary files has no room for :meth:`disk_bytes`."""
        folder = tempfile.gettempdir()
        free, needed = shutil.disk_usage(folder).free, self.disk_bytes()
        if needed > free:
            raise InputError(
                f"Temporary files take {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB left; make "
                "room, name another folder (TMPDIR), or take a smaller --factor."
            )

    def seconds(self, cascade: Runner, settings: Mapping[str, StageSettings]) -> list[float]:
        """How long each stage will take here, from one small tile of each, which is timed; 0 where it cannot tell."""
        found, state = [], ChainState((), (0,), self.num_frames, 0.0)
        for number, stage in enumerate(self.stages):
            with cascade.running(stage):
                found.append(stage.seconds(state, *self.made(number), settings[stage.name]))
        return found


def in_words(seconds: float) -> str:
    """A time to wait, as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"
