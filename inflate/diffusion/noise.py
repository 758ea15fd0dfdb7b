"""Noise of a video whose frames share a part of it."""

import math

from torch import Tensor

from inflate.errors import InputError


def mix_noise(own: Tensor, shared: Tensor, share: float | Tensor) -> Tensor:
    """Mixed noise: ``sqrt(share) shared + sqrt(1 - share) own``.

    "Preserve Your Own Correlation" (arXiv:2305.10474, section 4). Each frame's noise is standard normal again, as an
    image model expects it; two frames' noises correlate by ``share``, so that an image model decides on the same shapes
    in all frames, and temporal layers have less to reconcile.

    Args:
        own: standard normal, (B, C, F, H, W), independent between frames.
        shared: standard normal, (B, C, 1, H, W).
        share: from 0 (independent frames) to 1 (one noise for all); a number, or one per video (B,).

    Raises:
        InputError: ``share`` lies outside [0, 1].
    """
    lowest, highest = (share, share) if not isinstance(share, Tensor) else (float(share.min()), float(share.max()))
    if not 0 <= lowest <= highest <= 1:
        raise InputError(f"the share of noise common to all frames is {share}; it must lie between 0 and 1")
    if isinstance(share, Tensor):
        each = share.to(own).view(-1, 1, 1, 1, 1)
        return each.sqrt() * shared + (1 - each).sqrt() * own
    return math.sqrt(share) * shared + math.sqrt(1 - share) * own
