"""Still pictures for joint training: clips of one frame."""

from pathlib import Path

import numpy as np

from inflate.data.clips.scan import Scan
from inflate.data.listing.folders import caption_beside
from inflate.data.listing.found import PICTURES, Listing, VideoItem, hint_of, walk
from inflate.data.reading.footage import Footage
from inflate.data.reading.pictures import VideoError, as_looked_at, picture_at, plain, used_alone
from inflate.errors import InputError

# A .webp is listed as a video elsewhere; in a folder of pictures it is one.
_WANTED = PICTURES | {".webp", ".avif"}


def list_pictures(folder: str) -> Listing:
    """Every picture below ``folder``, with the caption of ``picture.txt`` beside it.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"there is no folder {root} of pictures; correct data.pictures or leave it empty")
    listing = Listing(root, stills=True)
    for here, files in walk(root):
        hint = hint_of(*listing.parts_of(here))
        for path in files:
            suffix = path.suffix.lower()
            if suffix in _WANTED:
                footage, caption = Footage(str(path), path, suffix), caption_beside(path, listing)
                listing.items.append(VideoItem(listing.name_of(path), footage, caption, hint, "still"))
                listing.touch(path)
    listing.account("not a picture")
    listing.leave_out_unwritable()
    if not listing.items:
        raise InputError(f"{root} holds no pictures ({', '.join(sorted(_WANTED))}); correct data.pictures")
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
    with picture_at(footage.path) as image:
        remarks = tuple(filter(None, [used_alone(image)]))
    return Scan(footage.content(), "stamped", None, 1, 0.0, 0.0, width, height, 1.0, False, box, 1, (), remarks)
