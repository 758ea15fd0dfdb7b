"""Windows over a video's frames: where they lie, what each counts for where they overlap, what is known in them.

Three ways of making a video that is longer than a network's own: what overlapping windows predict is averaged at every
step (:class:`Windows`, D^t); their results are cross-faded (:func:`windowed`, SR); or a window is told the frames that
another has made (:func:`plan_windows`, F).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.inflater import InflatedModel

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many there are
_PICTURES_AT_ONCE = 16  # of an image model, which sees each frame by itself


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


@dataclass(frozen=True)
class WindowConfig:
    """How a decoder makes videos longer than its network's own.

    ``overlap``: the share of a window that it has in common with the next one, 0 to below 1. ``moving``: whether
    windows lie elsewhere at each step. ``repeat_noise``: whether frames beyond the first window start from its frames'
    noise, shuffled (FreeNoise, arXiv:2310.15169), instead of noise of their own.
    """

    overlap: float = 0.5
    moving: bool = True
    repeat_noise: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be a share of a window from 0 to below 1, got {self.overlap}.")


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` frames that share ``overlap``.

    ``anchored``: every window has the video's first frame in place of its own first one, for networks whose spatial
    attention looks at the first frame; it needs an overlap.
    """

    size: int
    overlap: int
    moving: bool = True
    anchored: bool = False

    def __post_init__(self) -> None:
        check_window(self.size, self.overlap)
        assert self.overlap or not self.anchored, "the frame that gives way to the anchor is another window's too"

    @property
    def stride(self) -> int:
        """Frames from one window to the next."""
        return self.size - self.overlap

    def views(self, num_frames: int, call: int) -> "Iterator[WindowView]":
        """Windows over a video longer than one, for the ``call``-th evaluation (from 0), each when it is asked for."""
        shift = shift_of(call, self.stride) if self.moving else 0
        starts = window_starts(num_frames, self.size, self.overlap, shift)
        shares = window_shares(num_frames, self.size, self.overlap, starts, self.anchored)
        for start, share in zip(starts, shares, strict=True):
            frames = list(range(start, start + self.size))
            told = [0, *frames[1:]] if self.anchored else frames
            yield WindowView(start + (self.size - 1) / 2, told, frames, share)

    def frames_seen(self, num_frames: int) -> int:
        """Frames that go through the network for one evaluation of a video."""
        return min(num_frames, self.size) * count_windows(num_frames, self.size, self.overlap)


@dataclass(frozen=True)
class WindowView:
    """What a network sees of a video (B, c, F, h, w) at once, and what its answer counts for.

    ``middle``: the place of its middle in the video, in frames. ``told``: numbers of the frames that it sees, all of
    them for None; ``made``: of those that it answers for; ``share``: the weight of each in the mean so far.
    """

    middle: float
    told: list[int] | None = None
    made: list[int] | None = None
    share: Tensor | None = None

    @classmethod
    def whole(cls, sample: Tensor) -> "WindowView":
        """All of a video, or of something else that has no frames."""
        return cls((sample.shape[2] - 1) / 2 if sample.ndim == 5 else 0.0)

    def of(self, sample: Tensor) -> Tensor:
        """The frames that the network sees."""
        return sample if self.told is None else sample[:, :, self.told]

    def put(self, mean: Tensor | None, answer: Tensor, sample: Tensor) -> Tensor:
        """The mean of all answers so far for a whole video, this one being added."""
        if self.made is None or self.share is None:
            return answer
        if mean is None:
            mean = answer.new_zeros(*answer.shape[:2], sample.shape[2], *answer.shape[3:])
        weight = self.share.to(answer)[:, None, None]
        mean[:, :, self.made] = torch.lerp(mean[:, :, self.made], answer, weight)
        return mean


def windows_of(model: Any, config: WindowConfig | None = None) -> Windows:
    """The windows for a network: its own number of frames, or single frames in small batches for an image model."""
    config = config or WindowConfig()
    if not isinstance(model, InflatedModel):
        return Windows(_PICTURES_AT_ONCE, 0, moving=False)
    size = model.num_frames
    anchored = size > 1 and model.scheme.frames_seen.startswith("first")
    overlap = min(max(int(size * config.overlap), int(anchored)), size - 1)
    return Windows(size, overlap, config.moving and overlap > 0, anchored)


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
