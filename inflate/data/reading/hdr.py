"""HDR video as SDR, by a stated rule: PQ and HLG (ITU-R BT.2100) to BT.709 at its usual brightness.

1. The curve to linear light, in units of reference white: PQ's 203 nits (BT.2408, section 2.2); HLG at a peak of 1,000
   nits with its system gamma of 1.2.
2. BT.2020 primaries to BT.709 by their matrix (BT.2087); what lies outside is cut.
3. The largest of R, G and B stays as it is up to 0.75 of reference white; above, the rest of the range is approached
   as by an exponential, so that white is 0.91 and nothing is ever flat. R, G and B are scaled alike, which keeps hues.
4. BT.1886's gamma of 2.4, as players show BT.709.
"""

from functools import lru_cache

import numpy as np

CURVES = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273

_REFERENCE_NITS, _HLG_NITS, _HLG_GAMMA = 203.0, 1000.0, 1.2
_KNEE, _GAMMA = 0.75, 2.4
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # fmt: skip


def to_sdr(pixels: np.ndarray, curve: str) -> np.ndarray:
    """uint16 (H, W, 3) full-range R'G'B' of BT.2020 under ``curve`` ("PQ" or "HLG") -> uint8 (H, W, 3) of BT.709."""
    light = linear_light(curve)[pixels]
    if curve == "HLG":
        brightness = (light @ _LUMINANCE)[..., None]
        light = light * np.power(brightness, _HLG_GAMMA - 1) * np.float32(_HLG_NITS / _REFERENCE_NITS)
    light = np.maximum(light @ _TO_709.T, 0)
    largest = light.max(axis=-1, keepdims=True)
    over = np.maximum(largest - _KNEE, 0)
    kept = np.where(largest > _KNEE, 1 - (1 - _KNEE) * np.exp(-over / (1 - _KNEE)), largest)
    light = light * (kept / np.maximum(largest, 1e-9))
    return np.round(255 * np.power(light, 1 / _GAMMA)).astype(np.uint8)


@lru_cache(maxsize=2)
def linear_light(curve: str) -> np.ndarray:
    """Light of each of 65,536 signal levels, float32: PQ in reference whites, HLG of the scene in [0, 1]."""
    signal = np.arange(65536, dtype=np.float64) / 65535
    if curve == "HLG":  # BT.2100, table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        light = 10_000 / _REFERENCE_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light.astype(np.float32)
