"""Single pictures as they are looked at: upright, eight bits a channel of sRGB, what is transparent on white."""

import contextlib
import io
import struct
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

from inflate.data.reading.colours import SRGB_CURVE, STATED, VIDEO_CURVES, profile_of
from inflate.data.reading.containers import PICTURE, NoMediaError, recognise
from inflate.data.reading.gifs import GifPicture
from inflate.data.reading.hdr import CURVES, to_sdr
from inflate.errors import InputError

# Half a picture must count as unreadable, whatever another library set.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# Pillow knows many more, some of which are programs (EPS) or hold other formats.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# The colours that a profile is of, where the pixels are of another mode than RGB; else it is ignored, as in browsers.
_SPACES = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}
_PROFILES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
# Profiles of sRGB differ in how they round: what moves no colour by more levels is one.
_ROUNDING = 2
# Where files state their primaries and transfer curve, which Pillow does not hand out: what stands before them, and how
# they are written. ISO/IEC 23008-12, box "colr" of type "nclx"; PNG (third edition), chunk "cICP".
_STATED_AT = {"AVIF": (b"colrnclx", struct.Struct(">HH")), "PNG": (b"\0\0\0\4cICP", struct.Struct("BB"))}
_STATED_WITHIN = 1 << 16
_WITH_COLOURS = {"transparency", "icc_profile", STATED, "gamma"}  # of a picture's ``info``


class VideoError(InputError):
    """A file that could not be read as a video; the sentence names the file, the reason and what to do."""

    def __init__(self, name: str, reason: str, advice: str = "convert it to mp4, webm, mov, gif or webp again") -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read {name} as a video: {reason}; {advice}")


def plain(error: BaseException) -> str:
    """A library's reason in a few words."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "its header is damaged, or of a kind that is not read here"
    text = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    text = text.splitlines()[0].rstrip(".").strip()
    return (
        text
        if isinstance(error, OSError | SyntaxError | Image.DecompressionBombError)
        else f"its data is damaged ({text})"
    )


def on_white(picture: Image.Image) -> Image.Image:
    """An RGB picture of eight bits in sRGB with every transparent pixel composited on white.

    Its colours are converted by its ICC profile, if that can be read and is for pixels of its kind, or by what its file
    states of them (``inflate.data.reading.colours``); HDR (PQ and HLG in AVIF and PNG) by the rule of
    ``inflate.data.reading.hdr``.
    """
    if picture.mode == "RGB" and not picture.info.keys() & _WITH_COLOURS:
        return picture
    colours = _in_srgb(picture)
    if not picture.has_transparency_data:
        return colours
    colours.putalpha(picture.convert("RGBA").getchannel("A"))
    white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
    white.alpha_composite(colours)
    return white.convert("RGB")


def as_looked_at(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says (cameras store what the sensor saw), as :func:`on_white` makes it.

    An animation that is opened at its default image shows its first frame, as :func:`to_first_frame` has it.
    """
    place = picture.tell()
    to_first_frame(picture)
    try:
        return on_white(ImageOps.exif_transpose(picture))
    finally:
        if picture.tell() != place:
            picture.seek(place)


def to_first_frame(picture: Image.Image) -> None:
    """Go from the picture that an APNG has for others to the first one that browsers show; any other stays."""
    if not frame_numbers(picture).start or picture.tell():
        return
    picture.load()
    # Pillow draws the first frame on what is none; uncovered parts are transparent, which is white here.
    if picture.mode != "P":
        picture.paste(0 if "A" in picture.mode else "white", (0, 0, *picture.size))
    picture.seek(1)


def open_picture(file: BinaryIO) -> Image.Image:
    """Open a picture or an animation; of an animation the canvas counts as transparent.

    Raises:
        NoMediaError: its first bytes are those of a video, a playlist, a script or another text, or of nothing known
            here.
    """
    if recognise(file) != PICTURE:
        raise NoMediaError("it is a video")
    header = file.read(21)
    file.seek(0)
    if header.startswith(b"GIF8"):
        return GifPicture(file)
    if header[:4] == b"RIFF" and header[8:16] == b"WEBPVP8X" and len(header) == 21 and header[20] & 0x02:
        # Its frames need not cover the canvas, and what they leave uncovered is transparent (WebP container
        # specification, "Animation"). Encoders leave the flag for that out when the frames themselves are opaque;
        # Pillow then shows black.
        return Image.open(io.BytesIO(header[:20] + bytes([header[20] | 0x10]) + file.read()[21:]), formats=_formats())
    image = Image.open(file, formats=_formats())
    _note_stated(image, file)
    return image


def frame_numbers(image: Image.Image) -> range:
    """Numbers of the frames of an opened picture.

    The picture that an APNG has for others is none of them, nor is what a camera's JPEG (MPO) has behind its photo.
    """
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    return range(1 if getattr(image, "default_image", False) else 0, count)


def used_alone(image: Image.Image) -> str:
    """What a still of an opened picture is made of where there is more, in words; empty where there is not."""
    count = len(frame_numbers(image))
    return f"only the first of its {count} frames is used" if count > 1 else ""


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


def _note_stated(image: Image.Image, file: BinaryIO) -> None:
    """What the file states of its colours, into ``info``."""
    if image.format not in _STATED_AT:
        return
    mark, numbers = _STATED_AT[image.format]
    place = file.tell()
    file.seek(0)
    _, found, after = file.read(_STATED_WITHIN).partition(mark)
    file.seek(place)
    # An AVIF file with a profile may state the colours of its second picture, a gain map.
    if found and len(after) >= numbers.size and (image.format == "PNG" or "icc_profile" not in image.info):
        primaries, transfer = numbers.unpack_from(after)
        # As browsers have it: a curve of cameras is none of a picture, and PNG means what it says.
        video = image.format == "AVIF" and transfer in VIDEO_CURVES
        image.info[STATED] = (primaries, SRGB_CURVE if video else transfer)


def _in_srgb(picture: Image.Image) -> Image.Image:
    """The colours of a picture, whatever is transparent: a new RGB picture, without the profile that is converted."""
    mode = _SPACES.get(picture.mode, "L" if picture.mode in _DEEP else "RGB")
    if picture.mode in _DEEP:
        plain_colours = _eight_bits(picture)
    else:
        rgba = mode == "RGB" and picture.has_transparency_data
        plain_colours = picture.convert("RGBA").convert("RGB") if rgba else picture.convert(mode)
    if curve := CURVES.get(picture.info.get(STATED, (0, 0))[1]):
        return Image.fromarray(to_sdr(np.asarray(plain_colours.convert("RGB")).astype(np.uint16) * 257, curve))
    profile = profile_of(picture.info, mode == "L")
    transform = _to_srgb(profile, mode) if profile else None
    if transform is None:
        converted = plain_colours.convert("RGB")
    else:
        converted = Image.new("RGB", picture.size)
        transform.apply(plain_colours, converted)
    converted.info = {}
    return converted


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> Any:
    """The conversion of pixels of ``mode`` by an ICC profile; None where it changes nothing, or does not fit them."""
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):  # damaged
        return None
    if mode in ("RGB", "L"):
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        colours = Image.fromarray(grid if mode == "RGB" else levels[None])
        changed = Image.new("RGB", colours.size)
        transform.apply(colours, changed)
        if np.abs(np.asarray(changed, np.int16) - np.asarray(colours.convert("RGB"), np.int16)).max() <= _ROUNDING:
            return None
    return transform


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
