"""Sizes that clips are trained at: exact, square, or of about one area over aspect ratios, multiples of a number."""

import math

import numpy as np
from PIL import Image

from inflate.data.clips.options import ClipOptions
from inflate.errors import InputError

Size = tuple[int, int]  # height, width in pixels


def sizes_for(options: ClipOptions, multiple: int) -> list[Size]:
    """The sizes (height, width) that clips may take.

    Two numbers in ``size`` allow that size alone. One allows the square and, with ``aspect_buckets``, for every
    multiple as width the height whose area comes closest to the square's without passing it, up to ``max_aspect``.

    Raises:
        InputError: a size that ``multiple`` does not divide.
    """
    for number in options.size:
        if number % multiple:
            below, above = number // multiple * multiple, (number // multiple + 1) * multiple
            near = f"{below} or {above}" if below else str(above)
            raise InputError(
                f"data.size is {list(options.size)}, but this model takes multiples of {multiple} pixels; use {near} "
                f"in place of {number}"
            )
    if len(options.size) == 2:
        return [(options.size[0], options.size[1])]
    side = options.size[0]
    found = {(side, side)}
    if options.aspect_buckets:
        for width in range(multiple, int(side * math.sqrt(options.max_aspect)) + multiple, multiple):
            height = side * side // width // multiple * multiple
            if height and max(width / height, height / width) <= options.max_aspect:
                found.add((height, width))
    return sorted(found)


def nearest_size(sizes: list[Size], width: float, height: float) -> Size:
    """The size of the most similar aspect ratio; of two equally similar ones the larger."""
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (round(abs(math.log(size[1] / size[0]) - wanted), 6), -size[0] * size[1]))


def fit(pixels: np.ndarray, box: tuple[int, int, int, int], aspect: float, size: Size) -> np.ndarray:
    """Crop the middle of ``box`` (left, top, right, bottom) to the size's aspect ratio and resize it.

    ``pixels`` is uint8 (H, W, 3) with pixels ``aspect`` times as wide as high; the result uint8 (h, w, 3) has square
    ones. Whole-number reductions average boxes of pixels, all others use Lanczos.
    """
    height, width = size
    left, top, right, bottom = box
    across, down = (right - left) * aspect, float(bottom - top)
    kept_across = min(across, down * width / height)
    kept_down = min(down, across * height / width)
    crop_w, crop_h = kept_across / aspect, kept_down
    x, y = left + (right - left - crop_w) / 2, top + (bottom - top - crop_h) / 2
    if crop_w == width and crop_h == height and x == int(x) and y == int(y):
        return np.ascontiguousarray(pixels[int(y) : int(y) + height, int(x) : int(x) + width])
    whole = crop_w % width == 0 and crop_h % height == 0 and crop_w / width == crop_h / height
    resample = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    x1, y1 = min(x + crop_w, pixels.shape[1]), min(y + crop_h, pixels.shape[0])
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample, box=(max(0.0, x), max(0.0, y), x1, y1)))
