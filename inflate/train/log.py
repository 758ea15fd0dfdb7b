"""``log.jsonl``: one line per logged update, each update once however often the run was killed; and trackers."""

import hashlib
import importlib.util
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inflate.errors import InputError, nearest
from inflate.staging import write_whole
from inflate.train.changes import flat

# name in a recipe -> the package that pip installs and Python imports
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}

Line = dict[str, Any]


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise :class:`InputError` for a tracker that is unknown or whose package is missing."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(
                f"train.trackers names {name!r}{nearest(name, list(TRACKERS))}; use {', '.join(TRACKERS)}."
            )
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise InputError(f"train.trackers names {name!r}, which is not installed: pip install {TRACKERS[name]}.")


def tracker_settings(resolved: dict[str, Any]) -> dict[str, Any]:
    """A resolved recipe as the flat table of numbers and words that trackers show."""
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in flat(resolved).items()
    }


def tracker_arguments(name: str, folder: Path, start: int) -> dict[str, dict[str, Any]]:
    """What each tracker is told so that a run that goes on adds to what it has shown, and shows no update twice."""
    identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return {
        "tensorboard": {"purge_step": start + 1},
        "wandb": {"name": name, "dir": str(folder), "id": identity, "resume": "allow"},
        "trackio": {"name": f"{name}-{identity}", "resume": "allow"},
    }


class RunLog:
    """The lines of a run, in memory (``lines``) and in ``path``.

    ``done``: updates that the checkpoint has. Lines after it are of updates that will be done again, so they go.
    """

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        self.lines: list[Line] = []
        if path.is_file():
            read = path.read_text(encoding="utf-8", errors="replace").splitlines()
            parsed = [_parsed(text) for text in read] if done else []
            self.lines = [line for line in parsed if line is not None and line["update"] <= done]
            if len(self.lines) < len(read):
                write_whole(path, "".join(_text(line) for line in self.lines).encode())

    def add(self, update: int, values: Mapping[str, float | str]) -> Line:
        """Write one line; numbers that JSON does not have become null."""
        line: Line = {"update": update, "seconds": round(time.time(), 1)}
        for key, value in values.items():
            line[key] = value if isinstance(value, str) or math.isfinite(value) else None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_text(line))
        self.lines.append(line)
        return line


def _text(line: Line) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _parsed(text: str) -> Line | None:
    """A line, or None for one that a kill has cut off."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("update"), int) else None
