"""Whether a file or folder could be made somewhere, asked before any work is done for it."""

import re
import tempfile
from pathlib import Path

from inflate.errors import InputError

_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")


def check_place(path: Path) -> None:
    """Raise ``InputError`` for an address, a name that the file system cannot have, and where nothing can be made: on
    the way lies a file, or a folder that cannot be written to."""
    if _ADDRESS.match(str(path)):
        raise InputError(f"{path} is an address; name a place on this machine.")
    try:
        path.exists()
    except (OSError, ValueError) as error:  # too long a name; one with a zero in it
        raise InputError(f"The output's name cannot be used ({getattr(error, 'strerror', None) or error}).") from error
    for folder in path.parents:
        if folder.exists():
            if not folder.is_dir():
                raise InputError(f"{path} lies below {folder}, which is a file; name another place.")
            # Only trying tells: where permissions allow it, the kind of file system may not.
            try:
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise InputError(
                    f"{path} cannot be made: {folder} may not be written to; name another place."
                ) from error
            return
