"""A video of any length through a function of a few frames: overlapping windows, cross-faded, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from inflate.diffusion.windows import frames_of


def windowed(
    chunks: Iterable[Tensor], window: int, overlap: int, process: Callable[[Tensor, int], Tensor]
) -> Iterator[Tensor]:
    """``process`` over windows of a video; what two windows both make is faded linearly from one to the other.

    Args:
        chunks: (3, n, h, w) in order, of any n; how they are cut has no influence.
        window: frames in a window; the last one may have fewer.
        overlap: frames that a window shares with the one before it.
        process: (frames (n, 3, h, w), number of the first) -> (n, 3, H, W), a new tensor.

    Yields:
        (3, m, H, W) in order, as soon as no later window changes them. No more than one window, before and after
        ``process``, is held at any time.
    """
    waiting: list[Tensor] = []  # frames of the next window
    tail: Tensor | None = None  # the last frames of the window before, which the next one makes too
    first, stride = 0, window - overlap
    for frame in frames_of(chunks):
        waiting.append(frame)
        if len(waiting) == window:
            made = _faded(tail, process(torch.stack(waiting), first))
            tail = made[stride:].clone() if overlap else None
            del waiting[:stride]
            first += stride
            made = _as_chunk(made[:stride])
            yield made
            del made
    if len(waiting) > (0 if tail is None else len(tail)):
        yield _as_chunk(_faded(tail, process(torch.stack(waiting), first)))
    elif tail is not None:
        yield _as_chunk(tail)


def _faded(before: Tensor | None, made: Tensor) -> Tensor:
    """``made`` with its first frames faded in over those the window before made."""
    if before is not None:
        count = len(before)
        weight = torch.arange(1, count + 1, dtype=made.dtype)[:, None, None, None] / (count + 1)
        made[:count] = torch.lerp(before, made[:count], weight)
    return made


def _as_chunk(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1).contiguous()
