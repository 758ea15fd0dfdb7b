"""Contact sheet: generated pictures beside the true ones, so that a figure can be looked at."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from inflate.errors import InputError

_LABEL_HEIGHT = 14
_MARGIN = 4
_FOUND, _MISSED = (0, 120, 60), (180, 30, 30)


def contact_sheet(
    generated: np.ndarray,
    true: np.ndarray,
    labels: Sequence[str],
    found: Sequence[bool],
    columns: int = 5,
    scale: int = 1,
) -> Image.Image:
    """Pairs (generated left, true right) in a grid, each with its label below: green where found, red where not.

    Args:
        generated: uint8 ``(N, H, W, 3)``.
        true: uint8 ``(N, H, W, 3)``.
        labels: a word or two per pair, cut to the pair's width.
        found: whether the pair counts as a success.
        columns: pairs in a row.
        scale: whole-number enlargement of every picture.
    """
    if generated.shape != true.shape or generated.ndim != 4:
        raise InputError(f"a sheet needs as many true as generated pictures, got {true.shape} and {generated.shape}")
    count, height, width, _ = generated.shape
    cell_width, cell_height = 2 * width * scale + _MARGIN, height * scale + _LABEL_HEIGHT + _MARGIN
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN, rows * cell_height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        left = _MARGIN + index % columns * cell_width
        top = _MARGIN + index // columns * cell_height
        pair = Image.fromarray(np.concatenate([generated[index], true[index]], axis=1))
        sheet.paste(pair.resize((pair.width * scale, pair.height * scale), Image.Resampling.NEAREST), (left, top))
        # The default bitmap font is about 6 pixels wide.
        label = labels[index][: max(1, 2 * width * scale // 6)]
        draw.text((left, top + height * scale), label, fill=_FOUND if found[index] else _MISSED)
    return sheet


def png_bytes(sheet: Image.Image) -> bytes:
    """The sheet as the bytes of a PNG file."""
    buffer = BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
