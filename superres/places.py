"""Where in a picture a network is at work, and the noise that belongs there: a tile's is a cut of one endless field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from superres.tiling import Tile

_MARGIN = 4  # low-resolution pixels around a tile, more than bicubic interpolation looks at
_BLOCK = 64  # pixels, a side of the blocks that a field of noise is drawn in

# What is added to the name of random numbers -> a generator for each frame, fresh.
Generators = Callable[[str], Sequence[torch.Generator]]


@dataclass(frozen=True)
class Place:
    """A cut of a picture: its ``rows`` and ``columns`` of low-resolution pixels, and those ``around`` it.

    ``whole`` says that it is all of the picture.
    """

    rows: slice
    columns: slice
    around: tuple[slice, slice]
    whole: bool

    @classmethod
    def everything(cls, height: int, width: int) -> "Place":
        """All of a picture."""
        rows, columns = slice(0, height), slice(0, width)
        return cls(rows, columns, (rows, columns), True)

    @classmethod
    def of(cls, tile: Tile, height: int, width: int) -> "Place":
        """A tile of a picture of that size."""
        around = (_widened(tile.rows, height), _widened(tile.columns, width))
        return cls(tile.rows, tile.columns, around, False)

    @property
    def name(self) -> str:
        """What tells random numbers of this place from those of others."""
        return "" if self.whole else f"/at {self.rows.start} {self.columns.start}"

    def cut(self, enlarged: Tensor, scale: int) -> Tensor:
        """What lies at this place, of pictures enlarged from those around it."""
        parts = zip((self.rows, self.columns), self.around, strict=True)
        rows, columns = (slice((own.start - out.start) * scale, (own.stop - out.start) * scale) for own, out in parts)
        return enlarged[..., rows, columns]

    def noise(self, shape: Sequence[int], generators: Generators, corner: tuple[int, int]) -> Tensor:
        """Standard normal (n, c, h, w) for ``shape`` (c, h, w): of a whole picture in one draw, of a part by blocks.

        ``corner`` is the row and column of its first pixel, in the picture that the noise is for.
        """
        if self.whole:
            return torch.stack([torch.randn(tuple(shape), generator=one) for one in generators("")])
        channels, height, width = shape
        top, left = corner
        rows = range(top // _BLOCK, -(-(top + height) // _BLOCK))
        columns = range(left // _BLOCK, -(-(left + width) // _BLOCK))

        def block(row: int, column: int) -> Tensor:
            drawn = [torch.randn(channels, _BLOCK, _BLOCK, generator=one) for one in generators(f"/{row} {column}")]
            return torch.stack(drawn)

        field = torch.cat([torch.cat([block(row, column) for column in columns], -1) for row in rows], -2)
        top, left = top - rows.start * _BLOCK, left - columns.start * _BLOCK
        return field[..., top : top + height, left : left + width]


def _widened(part: slice, size: int) -> slice:
    return slice(max(0, part.start - _MARGIN), min(size, part.stop + _MARGIN))
