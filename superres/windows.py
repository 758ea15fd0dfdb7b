"""A video of any length through a function of a few frames: overlapping windows, cross-faded, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from inflate.diffusion.windows import frames_of


class Frames(Protocol):
    """Frames (3, H, W) by number, in memory or not; a tensor (n, 3, H, W) is such."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Tensor: ...

    def __setitem__(self, number: int, frame: Tensor, /) -> None: ...


def windowed(
    chunks: Iterable[Tensor], window: int, overlap: int, process: Callable[[Tensor, int], Frames]
) -> Iterator[Tensor]:
    """``process`` over windows of a video; what two windows both make is faded linearly from one to the other.

    Args:
        chunks: (3, n, h, w) in order, of any n; how they are cut has no influence.
        window: frames in a window; the last one may have fewer.
        overlap: frames that a window shares with the one before it.
        process: (frames (n, 3, h, w), number of the first) -> as many larger ones, new each time.

    Yields:
        (3, 1, H, W) in order, as soon as no later window changes them. No more than two windows of ``process`` are held
        at any time.
    """
    waiting: list[Tensor] = []  # frames of the next window
    before: Frames | None = None  # what the window before made; the next one makes its last frames too
    first, stride = 0, window - overlap
    for frame in frames_of(chunks):
        waiting.append(frame)
        if len(waiting) == window:
            frames = torch.stack(waiting)
            del waiting[:stride]  # before the network is at work
            made = process(frames, first)
            _fade_in(made, before, stride)
            before = made
            del made, frames
            first += stride
            for number in range(stride):
                yield before[number][:, None]
    if len(waiting) > (0 if before is None else overlap):
        made = process(torch.stack(waiting), first)
        _fade_in(made, before, stride)
        before, stride = made, 0
    if before is not None:
        for number in range(stride, len(before)):
            yield before[number][:, None]


def _fade_in(made: Frames, before: Frames | None, stride: int) -> None:
    """Fade the first frames of ``made`` in over those that the window before made too."""
    if before is None:
        return
    count = len(before) - stride
    for number, weight in enumerate(torch.arange(1, count + 1) / (count + 1)):
        made[number] = torch.lerp(before[stride + number], made[number], weight)
