"""Where windows lie in a video: within one shot, at a drawn frame rate, decided by the file's content alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inflate.data.clips.options import ClipOptions

_MOST_PER_VIDEO = 8
_SAME_TIME = 1e-6


@dataclass(frozen=True)
class Shot:
    """A stretch without a cut: seconds from ``begin`` to ``end``, and its own frames a second."""

    begin: float
    end: float
    rate: float


@dataclass(frozen=True)
class Placed:
    """A window: frame ``i`` is the one shown at ``start + i / fps``; ``shot`` numbers its shot.

    ``motion`` is the mean absolute difference of neighbouring drawn frames, in [0, 1].
    """

    shot: int
    start: float
    fps: float
    motion: float = -1.0


def unit(*parts: object) -> float:
    """A number in [0, 1) that follows from ``parts`` alone."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def place_windows(content: str, shots: Sequence[Shot], options: ClipOptions, loop: bool = False) -> list[Placed]:
    """Windows of ``num_frames`` within single shots.

    The rate is drawn log-uniformly between the two of ``fps`` as far as the shot's own rate and length allow: never
    above its own, so that no frame is shown twice in place of a new one, and fast enough that the window fits. Windows
    begin in the middle of a frame, so that times that were rounded by the container choose the same frames. A video
    that ``loop``s runs on from its end.
    """
    if options.clips_per_video:
        return _drawn(content, shots, options, loop)
    placed = []
    for number, shot in enumerate(shots):
        begin, k = shot.begin, 0
        while True:
            room = float("inf") if loop and not k else shot.end - begin - _SAME_TIME
            fps = _draw_rate(shot, room, options, unit(content, number, k))
            if fps is None:
                break
            placed.append(Placed(number, _within(begin, room, fps, shot, options), fps))
            begin += options.num_frames / fps
            k += 1
    if len(placed) > _MOST_PER_VIDEO:
        kept = np.linspace(0, len(placed) - 1, _MOST_PER_VIDEO).round().astype(int)
        placed = [placed[index] for index in kept]
    return placed


def _drawn(content: str, shots: Sequence[Shot], options: ClipOptions, loop: bool) -> list[Placed]:
    rooms = [float("inf") if loop else shot.end - shot.begin - _SAME_TIME for shot in shots]
    fitting = [
        number
        for number, (shot, room) in enumerate(zip(shots, rooms, strict=True))
        if _draw_rate(shot, room, options, 0.0) is not None
    ]
    if not fitting:
        return []
    lengths = np.cumsum([shots[number].end - shots[number].begin for number in fitting])
    placed = []
    for k in range(options.clips_per_video):
        at = unit(content, "shot", k) * lengths[-1]
        number = fitting[min(len(fitting) - 1, int(np.searchsorted(lengths, at, side="right")))]
        shot = shots[number]
        fps = _draw_rate(shot, rooms[number], options, unit(content, number, k))
        assert fps is not None, "the shot was found to fit"
        slack = shot.end - shot.begin if loop else rooms[number] - (options.num_frames - 1) / fps
        whole = float(np.floor(unit(content, "start", k) * slack * shot.rate) / shot.rate)
        start = _within(shot.begin + whole, rooms[number] - whole, fps, shot, options)
        placed.append(Placed(number, start, fps))
    return placed


def _within(begin: float, room: float, fps: float, shot: Shot, options: ClipOptions) -> float:
    """Half a frame behind ``begin``, or in the middle of what is left where that is less."""
    left = room - (options.num_frames - 1) / fps
    return round(begin + min(0.5 / shot.rate, left / 2), 6)


def _draw_rate(shot: Shot, room: float, options: ClipOptions, u: float) -> float | None:
    """A rate at which the window fits into ``room`` seconds, or None."""
    high = min(options.fps[-1], shot.rate)
    low = min(options.fps[0], high)
    if room <= 0:
        return None
    needed = (options.num_frames - 1) / room
    if needed > high:
        return None
    low = max(low, needed)
    return float(low * (high / low) ** u)


def shots_of(times: np.ndarray, end: float, cuts: Sequence[int]) -> list[Shot]:
    """Shots between the frames ``cuts`` begin at; ``times`` (F,) seconds rising, ``end`` that of the last frame."""
    bounds = [0, *cuts, len(times)]
    shots = []
    for first, behind in pairwise(bounds):
        finish = float(times[behind]) if behind < len(times) else end
        shots.append(Shot(float(times[first]), finish, own_rate(times[first:behind], finish)))
    return shots


def own_rate(times: np.ndarray, end: float) -> float:
    """Frames a second of a stretch: the usual step between frames, so that one long pause does not count.

    Containers round times; where the mean step is within a twentieth of the usual one, it is the better figure.
    """
    if len(times) < 2:
        return 1 / max(end - float(times[0]), 1e-3)
    usual = float(np.median(np.diff(times)))
    mean = float(times[-1] - times[0]) / (len(times) - 1)
    return round(1 / (mean if abs(mean - usual) < 0.05 * usual else usual), 6)


def drawn_frames(times: np.ndarray, end: float, placed: Placed, count: int, loop: bool) -> np.ndarray:
    """Numbers (count,) int64 of the frames shown at the window's times."""
    wanted = wanted_times(placed.start, placed.fps, count, end if loop else 0.0)
    return np.clip(np.searchsorted(times, wanted + _SAME_TIME, side="right") - 1, 0, len(times) - 1)


def wanted_times(start: float, fps: float, count: int, repeat: float = 0.0) -> np.ndarray:
    """Seconds (count,) of a window's frames; with ``repeat`` > 0 time begins again after that many seconds."""
    times = start + np.arange(count) / fps
    return np.mod(times, repeat) if repeat > 0 else times
