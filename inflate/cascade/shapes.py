"""Which size frames get that are made of somebody's pictures: the pictures' shape, and no bars beside it.

The largest part of the size's shape is cut out of a picture's centre.
"""

import math
from typing import Protocol

LONGEST = 3.0
"""How many times as long as the other a side is at most; longer pictures are cropped to that."""

_AREAS = (2 / 3, 3 / 2)  # times the usual one
_AREA_WEIGHT = 0.25  # of a logarithm of the area, where one of the shape counts 1


class Shape(Protocol):
    """What has a length and a size in pixels: a ``Video``, or the ``VideoFacts`` of a file."""

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        ...

    @property
    def height(self) -> int:
        """Height in pixels."""
        ...

    @property
    def width(self) -> int:
        """Width in pixels."""
        ...


def fitting_size(height: int, width: int, usual: tuple[int, int] | None, multiple: int | None) -> tuple[int, int]:
    """Height and width of frames for pictures of ``height`` x ``width`` pixels.

    Of the sizes whose sides ``multiple`` divides and whose area is about that of the usual one (2/3 to 3/2), that of
    which least is cropped, the nearest in area being preferred.

    Args:
        height: of the pictures.
        width: likewise.
        usual: the size that the networks were made for; None takes that of the pictures.
        multiple: in pixels; None where the networks know their usual size alone.
    """
    if multiple is None and usual is not None:
        return usual
    step = multiple or 1
    shape = min(max(width / height, 1 / LONGEST), LONGEST)
    rows, columns = usual or (max(height, step), max(width, step))
    area = rows * columns
    found: list[tuple[float, int, int]] = []
    for high in range(step, math.isqrt(round(area * _AREAS[1] * LONGEST)) + step, step):
        wanted = min(max(high * shape, area * _AREAS[0] / high), area * _AREAS[1] / high) / step
        for wide in (step * max(1, math.floor(wanted)), step * math.ceil(wanted)):
            if _AREAS[0] <= high * wide / area <= _AREAS[1]:
                off = abs(math.log(wide / high / shape)) + _AREA_WEIGHT * abs(math.log(high * wide / area))
                found.append((off, high, wide))
    return min(found)[1:] if found else (rows, columns)


def cropped_share(height: int, width: int, size: tuple[int, int]) -> float:
    """Which share of a picture of ``height`` x ``width`` is cropped for frames of ``size`` (height, width)."""
    ratio = width * size[0] / (height * size[1])
    return 1 - min(ratio, 1 / ratio)
