"""Which frames of a training clip are known: a mixture of everything ↑F is asked to do.

Make-A-Video, arXiv:2209.14792, section 3.3: variable frame skips with the frame rate as condition, and masks at the
start or the end for extrapolation.
"""

from collections.abc import Mapping

import numpy as np

from inflate.errors import InputError, nearest

MIXTURE = {"skip": 0.6, "first": 0.15, "last": 0.08, "one": 0.07, "ends": 0.1}
"""Shares of the kinds of masks: every k-th frame and the last; the first n; the last n; a single one; both ends."""

SKIPS = range(2, 9)
FAVOURED_SKIP = 5  # 16 frames to 76
COUNTS = (*range(1, 9), 12)


def check_mixture(mixture: Mapping[str, float]) -> None:
    """Raise ``InputError`` for an unknown kind of mask, or shares that cannot be."""
    for name, share in mixture.items():
        if name not in MIXTURE:
            raise InputError(f"options.masks names {name!r}{nearest(name, list(MIXTURE))}; use {', '.join(MIXTURE)}.")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1e6:
            raise InputError(
                f"options.masks of {name!r} is {share!r}; it must be a number of 0 or more, at most a million."
            )
    if not sum(mixture.values()) > 0:
        raise InputError("options.masks gives every kind of mask a share of 0; give one of them more.")


def draw_mask(rng: np.random.Generator, num_frames: int, mixture: Mapping[str, float] = MIXTURE) -> np.ndarray:
    """A bool mask (num_frames,), True where a frame is known; at least one is, and at least one is not.

    With k-th frames known, both ends are, as in the windows of sampling; half of them have the favoured skip.

    Raises:
        InputError: fewer than 2 frames.
    """
    if num_frames < 2:
        raise InputError(f"Clips for frame interpolation need 2 frames or more, got {num_frames}.")
    shares = np.array([float(share) for share in mixture.values()])
    kind = list(mixture)[int(rng.choice(len(shares), p=shares / shares.sum()))]
    known = np.zeros(num_frames, dtype=bool)
    if kind == "skip":
        skip = FAVOURED_SKIP if rng.random() < 0.5 else int(rng.choice(SKIPS))
        known[:: min(skip, num_frames)] = True
        known[-1] = True
    elif kind in ("first", "last"):
        count = min(int(rng.choice(COUNTS)), num_frames - 1)
        known[:count] = True
        known = known if kind == "first" else known[::-1].copy()
    elif kind == "one":
        # An image to animate is the first frame.
        known[0 if rng.random() < 0.5 else int(rng.integers(num_frames))] = True
    else:
        known[[0, -1]] = True
    if known.all():
        known[-1] = False
    return known
