"""What inflating one architecture with one scheme comes to, kept for later processes, which then need no torch.

An image model's names and shapes, its places and its arithmetic follow from its config, but only diffusers knows how:
the first process that converts or inspects an architecture builds it without weights, which takes the import of torch
and diffusers, and keeps what it found. Whatever could change that is in the name or the stamp of what is kept: config,
scheme, frames; versions of inflate, diffusers and torch, and our own source.
"""

import gzip
import hashlib
import json
import os
import sys
import zlib
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inflate.checkpoint.source import Source
from inflate.checkpoint.starts import Start, from_json, to_json, write_starts
from inflate.checkpoint.temporal import header_bytes
from inflate.errors import InputError
from inflate.figures import Report
from inflate.staging import write_whole
from inflate.version import __version__

_ROOMS = ("adapters", "inflater", "layers", "schemes.py", "schemes", "checkpoint", "figures.py")
_KEPT_PLANS = 200


@dataclass(frozen=True)
class Plan:
    """``shapes``: of the image model's weights by name.

    Of a temporal file with new layers: ``metadata`` (but for the fingerprint of the weights) and ``entries`` of its
    header, and ``starts``, what its tensors hold; None where only torch can make them, or nobody has asked yet.
    """

    shapes: dict[str, tuple[int, ...]]
    report: Report
    metadata: dict[str, str] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: dict[str, Start] | None = None

    def write_layers(self, path: Path, weights_fingerprint: str) -> None:
        """Write the temporal file of new layers; blocks of zeros are holes where the file system has them."""
        assert self.starts is not None, "asked before"
        with open(path, "wb") as file:
            file.write(header_bytes(self.entries, self.metadata | {"weights_fingerprint": weights_fingerprint}))
            write_starts(file, self.entries, self.starts)


def wanted() -> bool:
    """Whether plans are read and kept: by processes that have not imported torch yet, for which they spare it."""
    return "torch" not in sys.modules


def plan_path(source: Source, scheme: str, num_frames: int | str) -> Path | None:
    """Where the plan for a scheme's name, or its fields as a temporal file has them, is kept; None where there is no
    place for it."""
    folder = os.environ.get("INFLATE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(folder).expanduser() if folder else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    config = {name: value for name, value in source.config.items() if not name.startswith("_")}
    said = json.dumps([source.class_name, config, scheme, str(num_frames)], sort_keys=True)
    return base / "inflate" / "plans" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json.gz"


def read_plan(path: Path | None) -> Plan | None:
    """The plan that is kept there; None where there is none, or one of other versions or damaged."""
    try:
        if path is None or not path.is_file():
            return None
        values = json.loads(gzip.decompress(path.read_bytes()))
        if values["stamp"] != _stamp():
            return None
        shapes = {name: tuple(shape) for name, shape in values["shapes"].items()}
        starts = None if values["starts"] is None else from_json(values["starts"])
        report, metadata, entries = Report.from_dict(values["report"]), values["metadata"], values["entries"]
        return Plan(shapes, report, dict(metadata), dict(entries), starts)
    # It was cut short, or is of another format.
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError, zlib.error):
        return None


def keep_plan(path: Path | None, plan: Plan) -> None:
    """Keep a plan, where that can be written; the oldest go where there are too many."""
    if path is None:
        return
    values = {
        "stamp": _stamp(),
        "shapes": plan.shapes,
        "report": plan.report.as_dict(),
        "metadata": plan.metadata,
        "entries": plan.entries,
        "starts": None if plan.starts is None else to_json(plan.starts),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, gzip.compress(json.dumps(values).encode(), 6))
        kept = sorted(path.parent.glob("*.json.gz"), key=lambda one: one.stat().st_mtime)
        for old in kept[:-_KEPT_PLANS]:
            old.unlink(missing_ok=True)
    except (OSError, InputError):  # read-only, full or another user's: it is made anew the next time
        return


@cache
def _stamp() -> str:
    """Versions of whatever a plan depends on, and a digest of our own source."""
    digest = hashlib.sha256(__version__.encode())
    for package in ("diffusers", "torch", "numpy"):
        try:
            digest.update(f" {package} {version(package)}".encode())
        except PackageNotFoundError:
            digest.update(f" no {package}".encode())
    ours = Path(__file__).resolve().parent.parent
    for room in _ROOMS:
        place = ours / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()
