"""One pass over a video: its times, shots, black bars, and windows with their motion. Memory does not grow with it.

Frames are decoded one at a time. Of each, 32 x 32 grey pixels go to a temporary file, from which the motion of the
windows is measured once the shots are known; a time of 8 bytes a frame is all that is held.
"""

import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import IO, Any

import cv2
import numpy as np

from inflate.data.clips.options import ClipOptions
from inflate.data.clips.placing import Placed, Shot, drawn_frames, place_windows, shots_of
from inflate.data.extras import needs_training_extra
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import OutOfOrderError, Shown, Stamped, Timing, loops, shown_frames
from inflate.data.reading.pictures import VideoError

_GREY = 32
_SMALL = 128
# Black bars are looked for in every frame of the first ones, then in one of this many.
_BARS_FIRST, _BARS_EVERY = 4, 12
_BLACK = 24
# Bars thinner than this share are left; a picture smaller than that share is no letterboxed film.
_THINNEST, _LEAST = 0.02, 0.3
_BLUR = 2


@dataclass(frozen=True)
class Scan:
    """What a pass over one video found. Sizes are upright stored pixels, times seconds from the first frame.

    ``box`` (left, top, right, bottom) is the picture within its black bars; ``origin`` the container's own time of the
    first frame; ``timing`` says whether its times are used or frames counted at the stated rate; ``remarks`` say what a
    user of the file should know.
    """

    content: str
    timing: Timing
    origin: float | None
    frames: int
    duration: float
    rate: float
    width: int
    height: int
    aspect: float
    loop: bool
    box: tuple[int, int, int, int]
    shots: int
    placed: tuple[Placed, ...]
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Scan":
        """From what ``to_json`` gave."""
        placed = tuple(Placed(**window) for window in row["placed"])
        return cls(**{**row, "box": tuple(row["box"]), "placed": placed, "remarks": tuple(row["remarks"])})

    @property
    def barred(self) -> bool:
        """Whether black bars were found."""
        return self.box != (0, 0, self.width, self.height)


def scan_video(footage: Footage, options: ClipOptions) -> Scan:
    """Decode a video once.

    Raises:
        VideoError: unreadable, damaged, cut off, or of a single frame.
    """
    try:
        content = footage.content()
    except OSError as error:
        raise VideoError(footage.label, error.strerror or type(error).__name__) from error
    try:
        return _Pass(footage, options, "stamped").scan(content)
    except OutOfOrderError:
        return _Pass(footage, options, "counted").scan(content)


class _Pass:
    """The running figures of one pass."""

    def __init__(self, footage: Footage, options: ClipOptions, timing: Timing) -> None:
        self.footage, self.options = footage, options
        self.timing: Timing = timing
        self.times = array("d")
        self.cuts: list[int] = []
        self.end, self.origin, self.aspect = 0.0, None, 1.0
        self.size: tuple[int, int] | None = None
        self.bars: _Bars | None = None
        self.first_small: np.ndarray | None = None
        self.transfer = ""

    def scan(self, content: str) -> Scan:
        loop = loops(self.footage)
        detector = _Cuts(self.options.cut_threshold)
        with tempfile.TemporaryFile() as spool:
            for shown in shown_frames(self.footage, self.timing):
                small = shown.small(_SMALL)
                if self._is_cut(detector, small):
                    self.cuts.append(len(self.times))
                self._look(shown)
                grey = cv2.resize(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (_GREY, _GREY), interpolation=cv2.INTER_AREA)
                spool.write(grey.tobytes())
                self.times.append(shown.time)
                self.end = shown.end
            if len(self.times) < 2 or self.size is None or self.first_small is None:
                raise VideoError(self.footage.label, f"it has {len(self.times)} frame; a clip has two or more")
            # An animation that jumps when it begins again is not to be drawn across its end.
            loop = loop and not self.cuts and not detector.is_cut(self.first_small)
            return self._found(content, loop, spool)

    def _is_cut(self, detector: "_Cuts", small: np.ndarray) -> bool:
        if self.first_small is None:
            self.first_small = small
        if small.shape != self.first_small.shape:
            raise VideoError(self.footage.label, "its frames change size half-way")
        return detector.is_cut(small) and len(self.times) > 0

    def _look(self, shown: Shown) -> None:
        number = len(self.times)
        if number == 0 and isinstance(shown, Stamped):
            self.origin, self.transfer = shown.stamp, shown.transfer
        # Of numbered pictures every one is looked at: each may have a size of its own.
        every = 1 if self.footage.kind == "numbered" or number < _BARS_FIRST else _BARS_EVERY
        if number % every:
            return
        pixels = shown.pixels()
        size = (pixels.shape[1], pixels.shape[0])
        if self.size is None:
            self.size, self.aspect, self.bars = size, shown.aspect, _Bars(size)
        if size != self.size:
            raise VideoError(self.footage.label, "its frames change size half-way")
        assert self.bars is not None
        self.bars.see(pixels)

    def _found(self, content: str, loop: bool, spool: IO[bytes]) -> Scan:
        assert self.size is not None and self.bars is not None
        times = np.frombuffer(self.times, dtype=np.float64)
        shots: list[Shot] = shots_of(times, self.end, self.cuts)
        placed = []
        for window in place_windows(content, shots, self.options, loop):
            drawn = drawn_frames(times, self.end, window, self.options.num_frames, loop)
            placed.append(Placed(window.shot, window.start, window.fps, round(_motion(spool, drawn), 6)))
        return Scan(
            content=content,
            timing=self.timing,
            origin=self.origin,
            frames=len(times),
            duration=round(self.end, 6),
            rate=float(np.median([shot.rate for shot in shots])),
            width=self.size[0],
            height=self.size[1],
            aspect=self.aspect,
            loop=loop,
            box=self.bars.box() if self.options.crop_letterbox else (0, 0, *self.size),
            shots=len(shots),
            placed=tuple(placed),
            remarks=self._remarks(shots),
        )

    def _remarks(self, shots: list[Shot]) -> tuple[str, ...]:
        said = []
        if self.footage.kind == "numbered":
            said.append(f"pictures have no times; taken as {self.footage.rate:g} frames/s, the highest of data.fps")
        if self.timing == "counted":
            said.append(f"its times run backwards; frames are taken one after the other at {shots[0].rate:g} frames/s")
        if self.transfer:
            said.append(f"it is HDR ({self.transfer}), and its colours were brought to SDR")
        return tuple(said)


class _Cuts:
    """PySceneDetect's ContentDetector on frames that we decode; every cut counts, however short the shot."""

    def __init__(self, threshold: float) -> None:
        self.detector: Any = None
        self.number = 0
        if threshold > 0:
            with needs_training_extra():
                from scenedetect import ContentDetector
            self.detector = ContentDetector(threshold=threshold, min_scene_len=1)

    def is_cut(self, small: np.ndarray) -> bool:
        """Whether a new shot begins with this frame (uint8 BGR)."""
        if self.detector is None:
            return False
        from scenedetect import FrameTimecode

        found: Sequence[Any] = self.detector.process_frame(FrameTimecode(self.number, 25.0), small)
        self.number += 1
        return bool(found)


class _Bars:
    """Black bars: rows and columns that never showed anything, in all frames looked at."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.columns = np.zeros(self.width, np.uint8)
        self.rows = np.zeros(self.height, np.uint8)

    def see(self, pixels: np.ndarray) -> None:
        """Take in one frame, uint8 (H, W, 3)."""
        # Reductions over whole lines first: they are several times as fast as over the three colours.
        np.maximum(self.columns, pixels.max(axis=0).max(axis=1), out=self.columns)
        np.maximum(self.rows, pixels.reshape(self.height, -1).max(axis=1), out=self.rows)

    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the picture; the whole frame where there are no bars to speak of."""
        left, right = _bounds(self.columns)
        top, bottom = _bounds(self.rows)
        if (right - left) < _LEAST * self.width or (bottom - top) < _LEAST * self.height:
            return 0, 0, self.width, self.height
        return left, top, right, bottom


def _bounds(brightest: np.ndarray) -> tuple[int, int]:
    length = len(brightest)
    lit = np.flatnonzero(brightest > _BLACK)
    if not len(lit):
        return 0, length
    low, high = int(lit[0]), int(lit[-1]) + 1
    # A lossy codec smears the edge over a pixel or two.
    low = min(low + _BLUR, length - 1) if low >= _THINNEST * length else 0
    high = max(high - _BLUR, low + 1) if length - high >= _THINNEST * length else length
    return low, high


def _motion(spool: IO[bytes], drawn: np.ndarray) -> float:
    """Mean absolute difference of neighbouring drawn frames, in [0, 1]."""
    pictures = []
    for number in drawn:
        spool.seek(int(number) * _GREY * _GREY)
        pictures.append(np.frombuffer(spool.read(_GREY * _GREY), np.uint8).astype(np.int16))
    steps = [float(np.abs(b - a).mean()) for a, b in pairwise(pictures)]
    return float(np.mean(steps)) / 255
