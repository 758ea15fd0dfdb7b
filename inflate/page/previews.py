"""What the page shows at once of a picture or a video that was handed in: its first frame, and what it is."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from inflate.data.decode import iterate_frames, video_facts
from inflate.errors import InputError
from inflate.page.uploads import check_picture, refuse_large

_SIDE = 480  # pixels


@dataclass(frozen=True)
class Seen:
    """A small picture's file, and a line of facts."""

    picture: str
    facts: str


def preview_picture(path: str, folder: Path) -> Seen:
    """Of a picture.

    Raises:
        InputError: as :func:`check_picture`.
    """
    picture = check_picture(path)
    return Seen(_small(picture, folder), f"{picture.width} x {picture.height} pixels")


def preview_video(path: str, folder: Path) -> Seen:
    """Of a video.

    Raises:
        InputError: not a video, or too large a one.
    """
    name = Path(path).name
    refuse_large(Path(path))
    try:
        facts = video_facts(path)
        first = next(iterate_frames(path, 1))[0]
    except InputError as error:
        raise InputError(str(error).replace(path, name)) from error  # where uploads lie is nobody's business
    line = f"{facts.num_frames} frames, {facts.duration:.1f} s, {facts.width} x {facts.height} pixels"
    return Seen(_small(Image.fromarray(first), folder), line)


def _small(picture: Image.Image, folder: Path) -> str:
    shown = picture.copy()
    shown.thumbnail((_SIDE, _SIDE))
    path = Path(tempfile.mkdtemp(prefix="seen-", dir=folder)) / "first.png"
    shown.save(path)
    return str(path)
