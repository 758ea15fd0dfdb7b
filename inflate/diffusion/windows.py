"""Overlapping windows over a video's frames: where they lie, and what each counts for where they overlap."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from inflate.errors import InputError

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many there are


def check_window(window: int, overlap: int) -> None:
    """``InputError`` unless 0 <= overlap < window."""
    if window < 1 or not 0 <= overlap < window:
        raise InputError(f"window is {window} and overlap {overlap} frames; the overlap must be at least 0 and less.")


def count_windows(num_frames: int, window: int, overlap: int) -> int:
    """How many windows a video of ``num_frames`` takes."""
    return 1 if num_frames <= window else 1 + -(-(num_frames - window) // (window - overlap))


def window_starts(num_frames: int, window: int, overlap: int, shift: int = 0) -> list[int]:
    """First frames of windows that cover a video, rising; neighbours share at least ``overlap`` frames.

    All windows are whole: the last one reaches back. With ``shift``, from 0 to ``window - overlap``, those between the
    first and the last begin so many frames later, which takes one window more at most.
    """
    check_window(window, overlap)
    if num_frames <= window:
        return [0]
    last, stride = num_frames - window, window - overlap
    return [0, *range(shift % stride or stride, last, stride), last]


def shift_of(call: int, stride: int) -> int:
    """How far the windows of the ``call``-th evaluation (from 0) are shifted: nowhere twice in a row, and all over."""
    return int(stride * (call * _GOLDEN % 1))


def window_ramp(window: int, overlap: int) -> Tensor:
    """What each frame of a window counts for, (window,), above 0: it rises over the overlap to 1 and falls again.

    Two neighbours that share just ``overlap`` frames count for 1 together on each of them: a linear cross-fade.
    """
    place = torch.arange(1, window + 1)
    return torch.minimum(place, place.flip(0)).clamp(max=overlap + 1) / (overlap + 1)


def window_shares(
    num_frames: int, window: int, overlap: int, starts: list[int], anchored: bool = False
) -> Iterator[Tensor]:
    """For each window in turn, (n,): its weight over that of all windows up to it, at each of its frames.

    ``mean = lerp(mean, value, share)`` over windows then gives the mean weighted with :func:`window_ramp`; it is a
    value itself, to the last bit, where all windows have the same one. With ``anchored``, the first frame of every
    window but the first counts for nothing; then the overlap must be 1 or more.
    """
    ramp = window_ramp(min(window, num_frames), overlap)
    total = torch.zeros(num_frames)
    for start in starts:
        seen = slice(start, start + len(ramp))
        if anchored and start:
            ramp[0] = 0
        total[seen] += ramp
        yield ramp / total[seen]


def frames_of(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Single frames (3, H, W) of chunks (3, n, H, W), each a copy, so that no chunk is kept alive by one of them.

    Raises:
        InputError: a chunk of another shape, or frames of several sizes.
    """
    size: tuple[int, ...] = ()
    for chunk in chunks:
        if chunk.ndim != 4 or chunk.shape[0] != 3 or 0 in chunk.shape:
            raise InputError(f"A chunk of frames must be (3, frames, height, width), got {tuple(chunk.shape)}.")
        size = size or tuple(chunk.shape[2:])
        if tuple(chunk.shape[2:]) != size:
            raise InputError(
                f"All frames of a video must be of one size; got {size} and then {tuple(chunk.shape[2:])}."
            )
        for index in range(chunk.shape[1]):
            yield chunk[:, index].clone()
