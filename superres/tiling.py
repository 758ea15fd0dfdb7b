"""Pictures larger than memory: overlapping tiles that together are one picture.

A network of latents sees tiles at every step, and its predictions are blended (MultiDiffusion, arXiv:2302.08113,
equation 5). A network of pixels takes each tile through all steps by itself, so that no more than one is in memory; its
noise is then a cut of one field. Blending is the same: the running mean of what tiles say, by their weights.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inflate.errors import InputError


@dataclass(frozen=True)
class Tile:
    """A cut of a picture: ``rows``, ``columns``, and (h, w) ``share``, its weight over that of all tiles up to it.

    ``mean = lerp(mean, value, share)`` over tiles in turn gives the weighted mean of their values.
    """

    rows: slice
    columns: slice
    share: Tensor

    def times(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns of a picture ``scale`` times as large."""
        return (_times(self.rows, scale), _times(self.columns, scale))


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def check_tile(tile: int, overlap: int) -> None:
    """``InputError`` unless 0 <= overlap < tile."""
    if tile < 1 or not 0 <= overlap < tile:
        raise InputError(f"tile is {tile} and tile_overlap {overlap} px; the overlap must be at least 0 and less.")


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover ``size`` pixels; the last one ends at the edge.

    With ``size``, ``tile`` and ``overlap`` multiples of m, so is every start.
    """
    if size <= tile:
        return [0]
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_weight(length: int, overlap: int, first: bool, last: bool) -> Tensor:
    """Weights (length,) of one tile along one side: 1 inside, falling as sin^2 over ``overlap`` pixels at inner edges.

    Two tiles that overlap by exactly ``overlap`` pixels have weights that add up to 1.
    """
    weight = torch.ones(length)
    ramp = torch.sin(math.pi / 2 * (torch.arange(overlap) + 0.5) / max(1, overlap)).square()
    if not first:
        weight[:overlap] *= ramp
    if not last:
        weight[length - overlap :] *= ramp.flip(0)
    return weight


def tiles_of(height: int, width: int, tile: int, overlap: int, scale: int = 1) -> Iterator[Tile]:
    """Tiles of ``tile`` pixels a side that cover a picture, row by row; shares are for one ``scale`` times as large."""
    overlap = min(overlap, tile - 1)
    columns = list(_strips(width, tile, overlap, scale))
    across = torch.zeros(width * scale)
    for part, weight in columns:
        across[_times(part, scale)] += weight
    above = torch.zeros(height * scale)
    for rows, down in _strips(height, tile, overlap, scale):
        here, left = _times(rows, scale), torch.zeros(width * scale)
        for part, weight in columns:
            there = _times(part, scale)
            left[there] += weight
            before = torch.outer(above[here], across[there])
            yield Tile(rows, part, torch.outer(down, weight) / (before + torch.outer(down, left[there])))
        above[here] += down


def count_tiles(height: int, width: int, tile: int, overlap: int) -> int:
    """How many :func:`tiles_of` gives."""
    overlap = min(overlap, tile - 1)
    return len(tile_starts(height, tile, overlap)) * len(tile_starts(width, tile, overlap))


def _strips(size: int, tile: int, overlap: int, scale: int) -> Iterator[tuple[slice, Tensor]]:
    """Tiles along one side, and their weights."""
    for start in tile_starts(size, tile, overlap):
        stop = min(start + tile, size)
        yield slice(start, stop), tile_weight((stop - start) * scale, overlap * scale, start == 0, stop == size)


def blend_tiles(
    predict: Callable[[Tensor, Tensor], Tensor],
    sample: Tensor,
    condition: Tensor,
    tile: int,
    overlap: int,
    multiple: int = 1,
) -> Tensor:
    """``predict`` on tiles of a picture, blended; ``predict`` itself where one tile covers it.

    Args:
        predict: (sample, condition) of any size (..., H, W) -> a prediction of the same shape.
        sample: (..., H, W), H and W multiples of ``multiple``.
        condition: of the same shape.
        tile: side of a tile in pixels, rounded up to a multiple.
        overlap: pixels that neighbouring tiles share, rounded up to a multiple.
        multiple: what sides of tiles must be multiples of.
    """
    tile, overlap = (-(-value // multiple) * multiple for value in (tile, overlap))
    overlap = min(overlap, tile - multiple)
    height, width = sample.shape[-2:]
    if height <= tile and width <= tile:
        return predict(sample, condition)
    blended = torch.zeros_like(sample)
    for part in tiles_of(height, width, tile, overlap):
        where = (..., part.rows, part.columns)
        made = predict(sample[where].contiguous(), condition[where].contiguous())
        blended[where] = torch.lerp(blended[where], made, part.share.to(made))
    return blended
