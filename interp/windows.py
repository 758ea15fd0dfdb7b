"""Which frames go through the network together, and which of them are new: any length by windows of the trained one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from inflate.errors import InputError


@dataclass(frozen=True)
class Window:
    """Frames that the network sees at once.

    ``frames``: their numbers in the video, rising; ``known``: whether the network is told the frame, one per frame;
    ``new``: the numbers of those whose result is kept.
    """

    frames: tuple[int, ...]
    known: tuple[bool, ...]
    new: tuple[int, ...]

    @property
    def stride(self) -> float:
        """Mean step between its frames, in frames of the video."""
        return (self.frames[-1] - self.frames[0]) / max(1, len(self.frames) - 1)


def plan_windows(known: Sequence[bool], size: int) -> tuple[Window, ...]:
    """Windows of at most ``size`` frames that together make every unknown frame once, in the order to run them.

    A video that fits into one window is one window. Else: where two known frames lie further apart than a window, a
    window of frames spread evenly over the gap comes first, so that the far end is met; then windows from known frame
    to known frame, which share those and nothing else; then windows beyond the last known frame and before the first,
    each told the frames next to it that there are by then: half a window, or more where less is left to make.

    Args:
        known: which frames of the video are known.
        size: frames per window, as the network was trained.

    Returns:
        None for a video that is all known. A frame that a window is told is known, or new in an earlier window.

    Raises:
        InputError: no frame is known, or windows are too short to get anywhere.
    """
    given = [index for index, is_known in enumerate(known) if is_known]
    if not given:
        raise InputError("Frame interpolation needs at least one known frame; none of these is.")
    if len(given) == len(known):
        return ()
    if len(known) <= size:
        return (_window(range(len(known)), given, range(len(known))),)
    if size < 3:
        raise InputError(
            f"This frame interpolation network sees {size} frames at once; {len(known)} frames need one that sees 3."
        )
    spread = [window for first, last in pairwise(given) for window in _spread(first, last, size)]
    anchors = sorted({*given, *(index for window in spread for index in window.new)})
    return (
        *spread,
        *_between(anchors, size),
        *_after(anchors[0], anchors[-1], len(known), size),
        *_before(anchors[0], len(known), size),
    )


def _window(frames: Sequence[int], told: Sequence[int], span: Sequence[int]) -> Window:
    """The window of ``frames`` that is told ``told`` and makes what else lies in ``span``."""
    known = set(told)
    return Window(
        tuple(frames),
        tuple(index in known for index in frames),
        tuple(index for index in frames if index in span and index not in known),
    )


def _spread(first: int, last: int, size: int) -> list[Window]:
    """Windows over a gap too wide for one, coarse ones first, until no gap is."""
    if last - first < size:
        return []
    frames = [first + round(step * (last - first) / (size - 1)) for step in range(size)]
    finer = [window for pair in pairwise(frames) for window in _spread(*pair, size)]
    return [_window(frames, (first, last), frames), *finer]


def _between(anchors: Sequence[int], size: int) -> list[Window]:
    """Windows that begin and end at anchors, as long as fit; a short last one reaches back, to the trained length."""
    windows, start = [], 0
    while start + 1 < len(anchors):
        if anchors[start + 1] == anchors[start] + 1:
            start += 1
            continue
        end = start + 1
        while end + 1 < len(anchors) and anchors[end + 1] - anchors[start] < size:
            end += 1
        begin = start
        while begin > 0 and anchors[end] - anchors[begin - 1] < size:
            begin -= 1
        frames = range(anchors[begin], anchors[end] + 1)
        windows.append(_window(frames, anchors[begin : end + 1], range(anchors[start], anchors[end])))
        start = end
    return windows


def _after(first: int, last: int, count: int, size: int) -> list[Window]:
    windows = []
    while last < count - 1:
        told = min(last - first + 1, max(size - (count - 1 - last), size // 2))
        new = min(count - 1 - last, size - told)
        frames = range(last - told + 1, last + new + 1)
        windows.append(_window(frames, frames[:told], frames))
        last += new
    return windows


def _before(first: int, count: int, size: int) -> list[Window]:
    """The mirror image of :func:`_after`, once that is done."""
    return [
        Window(
            tuple(count - 1 - index for index in reversed(window.frames)),
            tuple(reversed(window.known)),
            tuple(count - 1 - index for index in reversed(window.new)),
        )
        for window in _after(0, count - 1 - first, count, size)
    ]
