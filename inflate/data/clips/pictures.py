"""Still pictures for joint training: clips of one frame."""

from pathlib import Path

import numpy as np

from inflate.data.clips.listing import STILLS, Listed, Listing, hint_of, walk
from inflate.data.clips.scan import Scan
from inflate.data.clips.text import read_caption
from inflate.data.reading.footage import Footage
from inflate.data.reading.pictures import VideoError, as_looked_at, picture_at, plain
from inflate.errors import InputError

PICTURES = STILLS | {".webp"}


def list_pictures(folder: str) -> Listing:
    """Every picture below ``folder``, with the caption of ``picture.txt`` beside it.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"there is no folder {root} of pictures; correct data.pictures or leave it empty")
    listing = Listing()
    for here, files in walk(root):
        for path in files:
            suffix = path.suffix.lower()
            if suffix == ".txt" and any(path.with_suffix(s) in files for s in PICTURES):
                continue
            if suffix not in PICTURES:
                listing.ignored.append((str(path), "not a picture"))
                continue
            own = path.with_suffix(".txt")
            name = path.relative_to(root).with_suffix("").as_posix()
            caption = read_caption(own) if own.is_file() else ""
            hint = hint_of(*here.relative_to(root).parts)
            listing.videos.append(Listed(name, Footage(str(path), path, suffix), caption, hint))
    if not listing.videos:
        raise InputError(f"{root} holds no pictures ({', '.join(sorted(PICTURES))}); correct data.pictures")
    return listing


def read_picture(footage: Footage) -> np.ndarray:
    """A picture, upright, transparent pixels on white: uint8 (H, W, 3)."""
    try:
        with picture_at(footage.path) as image:
            return np.asarray(as_looked_at(image))
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise VideoError(footage.label, plain(error)) from error


def scan_picture(footage: Footage) -> Scan:
    """Content and size of a picture; it is decoded whole, so that a damaged one is found now."""
    pixels = read_picture(footage)
    height, width = pixels.shape[:2]
    box = (0, 0, width, height)
    return Scan(footage.content(), "stamped", None, 1, 0.0, 0.0, width, height, 1.0, False, box, 1, ())
