"""The JSON files of models' folders, in which other programs keep an object of settings."""

import json
from pathlib import Path
from typing import Any

from inflate.errors import InputError


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: there is no such file, or it is no JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; copy its folder again.") from error
    except (ValueError, OSError, RecursionError) as error:  # a list in a list in a list, and so on
        raise InputError(f"{path} is not readable as JSON ({error}); copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object of settings: it is damaged; copy it again.")
    return content
