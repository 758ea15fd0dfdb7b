"""Single pictures as they are looked at: upright, eight bits a channel, what is transparent on white."""

import contextlib
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from inflate.data.reading.containers import recognise
from inflate.errors import InputError

# Half a picture must count as unreadable, whatever another library set.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# Pillow knows many more, some of which are programs (EPS) or hold other formats.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


class VideoError(InputError):
    """A file that could not be read as a video; the sentence names the file, the reason and what to do."""

    def __init__(self, name: str, reason: str, advice: str = "convert it to mp4, webm, mov, gif or webp again") -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read {name} as a video: {reason}; {advice}")


def plain(error: BaseException) -> str:
    """A library's reason in a few words."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture file Pillow knows"
    text = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    text = text.splitlines()[0].rstrip(".").strip()
    return (
        text
        if isinstance(error, OSError | SyntaxError | Image.DecompressionBombError)
        else f"its data is damaged ({text})"
    )


def on_white(picture: Image.Image) -> Image.Image:
    """An RGB picture of eight bits with every transparent pixel composited on white."""
    if picture.mode == "RGB":
        return picture
    if picture.mode in _DEEP:
        return _eight_bits(picture).convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def as_looked_at(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says (cameras store what the sensor saw), as :func:`on_white` makes it."""
    return on_white(ImageOps.exif_transpose(picture))


def open_picture(file: BinaryIO) -> Image.Image:
    """Open a picture or an animation; of a WebP animation the canvas counts as transparent.

    Raises:
        NoMediaError: its first bytes are those of a playlist, a script or another text, or of nothing known here.
    """
    recognise(file)
    header = file.read(21)
    file.seek(0)
    if header[:4] == b"RIFF" and header[8:16] == b"WEBPVP8X" and len(header) == 21 and header[20] & 0x02:
        # Its frames need not cover the canvas, and what they leave uncovered is transparent (WebP container
        # specification, "Animation"). Encoders leave the flag for that out when the frames themselves are opaque;
        # Pillow then shows black.
        return Image.open(io.BytesIO(header[:20] + bytes([header[20] | 0x10]) + file.read()[21:]), formats=_formats())
    return Image.open(file, formats=_formats())


@contextlib.contextmanager
def picture_at(path: str | Path) -> Iterator[Image.Image]:
    """The picture of a file, as :func:`open_picture` opens it."""
    with Path(path).open("rb") as file, open_picture(file) as image:
        yield image


@cache
def _formats() -> tuple[str, ...]:
    """Those of ours that this Pillow was built with; it raises ``KeyError`` for any other."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey levels of 16 bits, or of floating point in [0, 1], as eight bits; what is beyond is cut.

    Pillow's own conversion cuts everything above 255, which leaves a scan or a depth map white.
    """
    values = np.asarray(picture)
    if picture.mode == "F":
        scaled = values.astype(np.float64) * (255 if values.max(initial=0) <= 1 else 1)
    else:  # "I" is what older files of 16 bits come as
        scaled = values.astype(np.float64) / 257 if picture.mode != "I" or values.max(initial=0) > 255 else values
    return Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8), "L")
