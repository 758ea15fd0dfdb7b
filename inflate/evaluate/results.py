"""Result files: a figure with the protocol that made it, and two of them side by side only where that is the same."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inflate.errors import InputError
from inflate.evaluate.estimates import Extrapolated, Interval
from inflate.version import __version__

FORMAT = "inflate-evaluation-1"
ENOUGH_CLIPS = 2048  # below, Fréchet distances are mostly bias; what Video LDM and cd-fvd count
# What differs between two sets of made clips by right, and says nothing of how they were measured.
_OF_THE_SET = ("made.name", "made.fingerprint", "made.left_out", "made.frames_as_stored")


@dataclass(frozen=True)
class Result:
    """One figure. ``protocol`` is all it depends on beside the clips that were made; ``more`` are figures beside it."""

    measure: str
    value: float
    protocol: Mapping[str, Any]
    interval: Interval | None = None
    extrapolated: Extrapolated | None = None
    warnings: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "measure": self.measure,
            "value": self.value,
            "interval": None if self.interval is None else asdict(self.interval),
            "extrapolated_to_infinity": None if self.extrapolated is None else asdict(self.extrapolated),
            **self.more,
            "warnings": list(self.warnings),
            "protocol": dict(self.protocol),
            "versions": {"inflate": __version__, **{name: version(name) for name in ("torch", "numpy", "av")}},
        }

    def sentence(self) -> str:
        """The figure for people."""
        said = f"{self.measure}: {_number(self.value)}"
        if self.interval is not None:
            said += f" ({self.interval.level:.0%} {_number(self.interval.low)} to {_number(self.interval.high)})"
        if self.extrapolated is not None:
            said += f"; extrapolated to infinitely many clips {_number(self.extrapolated.value)}"
        return said


def read_result(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        InputError: there is none, or it is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; write one with: inflate evaluate … --json {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a result file; measure again") from error
    whole = isinstance(found, dict) and found.get("format") == FORMAT
    if not whole or not isinstance(found.get("protocol"), dict) or not isinstance(found.get("value"), int | float):
        raise InputError(f"{path} is no result of inflate evaluate with a protocol inside; measure again with --json")
    return found


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two results' measures or protocols differ: by dotted name, what each has (None where it has nothing)."""
    flat = [dict(_flat({"measure": one["measure"], **one["protocol"]})) for one in (first, second)]
    names = sorted({*flat[0], *flat[1]} - set(_OF_THE_SET))
    return {name: (flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)}


def refuse_different(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Raise ``InputError``, which names every field that differs, unless two results were measured alike."""
    if first["measure"] != second["measure"]:
        raise InputError(
            f"{names[0]} and {names[1]} are different measures, {first['measure']} and {second['measure']}; measure "
            "both alike, or put them side by side --anyway"
        )
    found = differences(first, second)
    if found:
        said = ", ".join(f"{name} ({_said(one)} and {_said(other)})" for name, (one, other) in found.items())
        raise InputError(
            f"{names[0]} and {names[1]} were measured differently: {said}; measure both alike, or compare them --anyway"
        )


def comparison(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Both figures and their difference, for people."""
    rows = []
    for one in (first, second):
        interval, beyond = one.get("interval"), one.get("extrapolated_to_infinity")
        spread = "" if interval is None else f"{_number(interval['low'])} to {_number(interval['high'])}"
        beyond = "" if beyond is None else _number(beyond["value"])
        rows.append(
            f"| {one['measure']} of {one['protocol']['made']['name']} | {_number(one['value'])} | {spread} | {beyond} |"
        )
    lines = ["| | value | 95 % | extrapolated |", "| --- | ---: | ---: | ---: |", *rows]
    difference = second["value"] - first["value"]
    deviations = [one["interval"]["deviation"] if one.get("interval") else math.nan for one in (first, second)]
    apart = math.hypot(*deviations)
    if math.isfinite(apart) and apart > 0:
        lines.append(f"difference {_number(difference)}, {abs(difference) / apart:.1f} times its standard deviation")
    else:
        lines.append(f"difference {_number(difference)}")
    return lines


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def _said(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 100 else f"{value:.4g}"
