"""Colours that a file states by numbers, ITU-T H.273's or PNG's gAMA and cHRM, as the ICC profile it could have had.

So they take the same way to sRGB as a profile does. What is taken for what follows Chromium 150, by measurement.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

Primaries = tuple[float, ...]
"""x and y of white, red, green and blue, in PNG's order."""

STATED = "stated colours"
"""In a picture's ``info``: H.273's numbers of primaries and transfer curve, where its file has them."""

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SRGB: Primaries = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES: dict[int, Primaries] = {
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
WIDE = frozenset({9, 11, 12})
"""Primaries of BT.2020, DCI-P3 and Display P3."""

SRGB_CURVE = 13
VIDEO_CURVES = frozenset({1, 6, 11, 14, 15})
"""Of BT.709, BT.601, xvYCC and BT.2020: one camera's curve, which is shown as a gamma of 2.4 (BT.1886)."""

# Most writers' gAMA; without cHRM it says nothing that a file without both does not.
_USUAL_GAMMA = 0.45455
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_NODES = 1024

Curve = Callable[[np.ndarray], np.ndarray]


def profile_of(info: Mapping[Any, Any], grey: bool) -> bytes | None:
    """The ICC profile of a picture's pixels: made of what ``STATED`` says of them, or else its own, or else made of
    gAMA and cHRM where sRGB is not said (PNG, third edition, 4.3); None where they count as sRGB.

    ``grey``: of pixels of one channel.
    """
    if STATED in info:
        primaries, transfer = info[STATED]
        return profile_by_numbers(primaries, transfer, grey)
    if "icc_profile" in info or "srgb" in info:
        return info.get("icc_profile")
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    if not gamma or (gamma == _USUAL_GAMMA and chromaticity is None):
        return None
    return _made(tuple(chromaticity or _SRGB), None, 1 / gamma, grey)


def profile_by_numbers(primaries: int, transfer: int, grey: bool = False) -> bytes | None:
    """An ICC profile of H.273's numbers, or None where they, or those of them that are known here, are sRGB's."""
    if primaries not in _PRIMARIES and transfer not in _CURVES:
        return None
    return _made(_PRIMARIES.get(primaries, _SRGB), transfer if transfer in _CURVES else None, 0.0, grey)


def _srgb_curve(signal: np.ndarray) -> np.ndarray:  # IEC 61966-2-1
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _smpte_240m(signal: np.ndarray) -> np.ndarray:
    return np.where(signal < 0.0912, signal / 4.0, ((signal + 0.1115) / 1.1115) ** (1 / 0.45))


_CURVES: dict[int, Curve] = {
    **dict.fromkeys(VIDEO_CURVES, lambda signal: signal**2.4),
    4: lambda signal: signal**2.2,
    5: lambda signal: signal**2.8,
    7: _smpte_240m,
    8: lambda signal: signal,
    17: lambda signal: signal**2.6 * 52.37 / 48,
}


@lru_cache(maxsize=16)
def _made(primaries: Primaries, transfer: int | None, gamma: float, grey: bool) -> bytes:
    """A profile of version 2 (ICC.1:2001-04): a curve, and of colours a matrix to the white of D50."""
    signal = np.linspace(0, 1, _NODES)
    light = signal**gamma if gamma else (_srgb_curve if transfer is None else _CURVES[transfer])(signal)
    levels = np.round(65535 * np.clip(light, 0, 1)).astype(">u2").tobytes()
    curve = b"curv" + bytes(4) + struct.pack(">I", _NODES) + levels
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"stated\0" + bytes(79), b"wtpt": _xyz(_D50)}
    tags |= {b"cprt": b"text" + bytes(4) + b"none"}
    if grey:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip(b"rgb", _to_d50(primaries).T, strict=True):
            tags |= {bytes([name]) + b"XYZ": _xyz(column), bytes([name]) + b"TRC": curve}
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", at + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    space = b"GRAY" if grey else b"RGB "
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"infl", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _to_d50(primaries: Primaries) -> np.ndarray:
    """Linear light to XYZ under D50, float64 (3, 3): by the primaries' own white, and from that by Bradford's rule."""
    x, y = np.array(primaries[0::2]), np.array(primaries[1::2])
    xyz = np.stack([x, y, 1 - x - y]) / y
    white, colours = xyz[:, 0], xyz[:, 1:]
    own = colours * np.linalg.solve(colours, white)
    seen, wanted = _BRADFORD @ white, _BRADFORD @ np.array(_D50)
    return np.linalg.solve(_BRADFORD, (wanted / seen)[:, None] * (_BRADFORD @ own))


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)
