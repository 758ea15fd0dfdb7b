"""A video of any length through a function of a few frames: overlapping windows, cross-faded, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from inflate.errors import InputError


def check_window(window: int, overlap: int) -> None:
    """``InputError`` unless 0 <= overlap < window."""
    if window < 1 or not 0 <= overlap < window:
        raise InputError(f"window is {window} and overlap {overlap} frames; the overlap must be at least 0 and less.")


def count_windows(num_frames: int, window: int, overlap: int) -> int:
    """How many windows a video of ``num_frames`` takes."""
    return 1 if num_frames <= window else 1 + -(-(num_frames - window) // (window - overlap))


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
