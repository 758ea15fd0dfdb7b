"""What became of every file of a data set: used, skipped with the reason, ignored with the reason."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Left = tuple[str, str]
_NAMED = 5


@dataclass(frozen=True)
class DataReport:
    """``seen`` = ``used`` + ``skipped`` + ``ignored``, in files (or samples of a shard, or rows of a data set).

    ``skipped`` were meant to be used and could not be; ``ignored`` are no videos, or were left out on purpose. Captions
    and tables that were read are not counted. ``partly`` names used files of which something was left out (static
    windows, letterbox bars, shots that are too short), ``notes`` are sentences about the set as a whole, and
    ``windows`` counts the windows by split and kind.
    """

    used: int
    skipped: tuple[Left, ...] = ()
    ignored: tuple[Left, ...] = ()
    partly: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    windows: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Files that were found or named."""
        return self.used + len(self.skipped) + len(self.ignored)

    def sentence(self) -> str:
        """One line for people, naming up to five files of each kind."""
        drawn = ", ".join(f"{count} {name}" for name, count in self.windows.items())
        parts = [f"{self.seen} files seen: {self.used} used" + (f" ({drawn})" if drawn else "")]
        parts.append(f"{len(self.skipped)} skipped" + _named(self.skipped))
        parts.append(f"{len(self.ignored)} ignored" + _named(self.ignored))
        if self.partly:
            parts.append(f"{len(self.partly)} used in part" + _named(self.partly))
        return "; ".join([*parts, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """Every file with its reason, as plain data."""
        return {
            "seen": self.seen,
            "used": self.used,
            "windows": dict(self.windows),
            "skipped": [list(pair) for pair in self.skipped],
            "ignored": [list(pair) for pair in self.ignored],
            "partly": [list(pair) for pair in self.partly],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "DataReport":
        """From what ``to_json`` gave."""
        pairs = {name: tuple((at, why) for at, why in row[name]) for name in ("skipped", "ignored", "partly")}
        return cls(row["used"], **pairs, notes=tuple(row["notes"]), windows=dict(row["windows"]))

    def dumps(self) -> str:
        """``to_json`` as text."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"


def captions_missing(captions: Sequence[str], things: str) -> list[str]:
    """A warning with the count where some captions are empty; ``things`` is what they belong to."""
    empty = sum(not caption for caption in captions)
    if not empty:
        return []
    return [f"WARNING: {empty} of {len(captions)} {things} have no caption and are told the empty text."]


def _named(left: tuple[Left, ...]) -> str:
    if not left:
        return ""
    more = f", and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return ": " + ", ".join(f"{name} ({reason})" for name, reason in left[:_NAMED]) + more
