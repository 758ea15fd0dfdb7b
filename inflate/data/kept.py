"""Where what is found out about a data set is kept, for data that may be written to and for data that may not."""

import hashlib
import os
from pathlib import Path

CACHE_VARIABLE = "INFLATE_CACHE"
ELSEWHERE = f"name another folder with --cache, data.cache or the variable {CACHE_VARIABLE}"
HIDDEN = ".inflate-cache"


def cache_folder(path: str | Path) -> Path:
    """The folder for caches of the data in ``path``: ``.inflate-cache`` in it, or beside it where it is a file; with
    the variable ``INFLATE_CACHE`` one of its own below the folder that this names."""
    path = Path(path)
    below = os.environ.get(CACHE_VARIABLE, "").strip()
    if not below:
        return (path if path.is_dir() else path.parent) / HIDDEN
    place = path.resolve()
    return Path(below) / f"{place.name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"
