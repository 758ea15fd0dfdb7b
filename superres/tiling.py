"""Pictures larger than memory: the network sees overlapping tiles, and its predictions are blended at every step.

Noise, scheduler and its own random numbers work on the whole picture, so a tile's noise is a cut of one field, and
neighbouring tiles cannot drift apart from one step to the next (MultiDiffusion, arXiv:2302.08113, equation 5).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from inflate.errors import InputError


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
    if overlap >= tile:
        overlap = tile - multiple
    height, width = sample.shape[-2:]
    if height <= tile and width <= tile:
        return predict(sample, condition)
    total, weights = torch.zeros_like(sample), torch.zeros(height, width, device=sample.device)
    tops, lefts = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    for top in tops:
        rows = slice(top, min(top + tile, height))
        down = tile_weight(rows.stop - top, overlap, top == 0, rows.stop == height)
        for left in lefts:
            columns = slice(left, min(left + tile, width))
            across = tile_weight(columns.stop - left, overlap, left == 0, columns.stop == width)
            weight = torch.outer(down, across).to(sample.device)
            made = predict(sample[..., rows, columns].contiguous(), condition[..., rows, columns].contiguous())
            total[..., rows, columns] += made * weight
            weights[rows, columns] += weight
    return total / weights
