"""Reading a video frame by frame at the times a player shows them, from any time on, one frame in memory.

Times are seconds from the first frame shown. Containers are read by PyAV, animations by Pillow, numbered pictures at a
stated rate. Rotation and mirroring are undone by the display matrix, not by the angle that libraries derive from it
(they give the same angle for a mirror and a half turn).
"""

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from inflate.data.reading.colours import SRGB_CURVE, STATED, WIDE
from inflate.data.reading.containers import is_picture, opened_container
from inflate.data.reading.decoding import decoded, stated_rate
from inflate.data.reading.durations import shown_seconds, stated_spans
from inflate.data.reading.endings import missing_bytes
from inflate.data.reading.footage import Footage
from inflate.data.reading.hdr import CURVES, to_sdr
from inflate.data.reading.pictures import (
    VideoError,
    as_looked_at,
    frame_numbers,
    on_white,
    open_picture,
    picture_at,
    plain,
    to_first_frame,
)

Timing = Literal["stamped", "counted", "mended"]

# Two clocks that agree to a microsecond show the same frame.
SAME_TIME = 1e-6
# Where to look for a key frame, in seconds before the wanted time; the last resort is the beginning.
_LOOK_BACK = (0.0, 10.0, float("inf"))
_UNSPECIFIED, _BT709, _HD_LINES = 2, 1, 720


class OutOfOrderError(Exception):
    """The container's times run backwards: they are counted instead, at the stated rate."""


@dataclass(frozen=True)
class Shown:
    """One frame: shown from ``time`` until ``end`` (seconds), with ``aspect``, the width of a pixel over its height."""

    time: float
    end: float
    aspect: float
    pixels: Callable[[], np.ndarray]  # uint8 (H, W, 3) RGB, upright
    small: Callable[[int], np.ndarray]  # uint8 (h, w, 3) BGR, at most that many pixels a side, as stored
    alpha: Callable[[], np.ndarray | None] = lambda: None  # uint8 (H, W), upright, or None; before the next frame


def shown_frames(
    footage: Footage,
    timing: Timing = "stamped",
    start: float = 0.0,
    origin: float | None = None,
    threads: int = 1,
) -> Iterator[Shown]:
    """The frame shown at ``start`` seconds (or one before it) and all after it, in order.

    ``origin`` is the container's own time of the first frame, as a scan found it; without it reading starts there.
    ``timing``: the container's times; frames counted at its rate; or its times, and where they run backwards a frame
    later than the last one. ``threads``: of the decoder, 0 for as many as it likes.

    Raises:
        VideoError: unreadable, damaged or cut off, once that place is reached.
        OutOfOrderError: ``timing`` is "stamped" and the times run backwards.
    """
    with explained(footage):
        if footage.kind == "numbered":
            yield from _numbered(footage, start)
        elif is_picture(footage):
            yield from _animation(footage)
        elif timing != "stamped" or origin is None or start <= 0:
            yield from _container(footage, timing, 0.0, None, threads)
        else:
            yield from _sought(footage, start, origin)


@contextlib.contextmanager
def explained(footage: Footage) -> Iterator[None]:
    """Whatever a library says about the bytes of ``footage`` becomes a ``VideoError``."""
    try:
        yield
    except (VideoError, OutOfOrderError, MemoryError, RecursionError):
        raise
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise VideoError(footage.label, plain(error)) from error


def stored_size(footage: Footage) -> tuple[int, int, int]:
    """Width and height as stored, and the number of frames, by headers and packets alone: no pixel is decoded.

    Raises:
        VideoError: unreadable, or no video.
    """
    with explained(footage):
        if is_picture(footage):
            with footage.open() as file, open_picture(file) as image:
                return image.width, image.height, len(frame_numbers(image))
        with _opened(footage) as (container, stream):
            count = sum(1 for packet in container.demux(stream) if packet.size)
            return stream.codec_context.width, stream.codec_context.height, count


def loops(footage: Footage) -> bool:
    """Whether an animation asks to be repeated for ever."""
    return play_count(footage) == 0


def play_count(footage: Footage) -> int | None:
    """How many times an animation asks to be shown, 0 for ever; None for what does not say."""
    if footage.kind == "numbered":
        return None
    with contextlib.suppress(Exception), footage.open() as file, open_picture(file) as image:
        said = image.info.get("loop")
        if len(frame_numbers(image)) == 1:
            return None
        if image.format == "GIF":  # says how often it is shown again, and nothing where it is not
            return 1 if said is None else said + 1 if said else 0
        return said
    return None


def picture_spans(footage: Footage) -> list[tuple[float, float]]:
    """When the frames of an animation are shown, (start, end) in seconds; a gif and a webp are not decoded for that.

    Raises:
        VideoError: unreadable, damaged or cut off, as far as that was looked at.
    """
    if footage.kind != "numbered":
        with explained(footage), footage.open() as file, open_picture(file) as image:
            _refuse_shortened(footage, footage.length())
            if spans := stated_spans(image, file):
                return spans
    return [(shown.time, shown.end) for shown in shown_frames(footage)]


def packet_spans(footage: Footage) -> tuple[list[tuple[float, float]], float]:
    """When a container shows its frames, by its packets alone; nothing is decoded.

    Returns (start, end) of each in seconds from the first one's start, and that start on the container's own clock.
    Edit lists leave packets out that headers count. Of two frames at one time the second is never shown. Without a time
    for each packet, or where a recording's clock starts again, frames are counted at the stated rate.

    Raises:
        VideoError: unreadable, or no video.
    """
    times: list[tuple[float, float]] = []
    count, backwards, decoded_at = 0, False, -math.inf
    with explained(footage), _opened(footage) as (container, stream):
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            count += 1
            # Packets come in the order of decoding.
            if packet.dts is not None:
                backwards, decoded_at = backwards or packet.dts < decoded_at, packet.dts
            if packet.pts is not None and packet.time_base:
                base = float(packet.time_base)
                times.append((packet.pts * base, (packet.duration or 0) * base))
        rate = stated_rate(stream)
    if not count:
        raise VideoError(footage.label, "it has no frames")
    starts = sorted(start for start, _ in times)
    if len(starts) < count or backwards:
        return [(number / rate, (number + 1) / rate) for number in range(count)], starts[0] if starts else 0.0
    starts = [starts[0], *(later for earlier, later in pairwise(starts) if later - earlier > SAME_TIME)]
    origin, held = starts[0], max(times)[1]
    step = (starts[-1] - origin) / (len(starts) - 1) if len(starts) > 1 else 1 / rate
    ends = [*starts[1:], starts[-1] + (held or step)]
    return [(start - origin, end - origin) for start, end in zip(starts, ends, strict=True)], origin


def _pictured(picture: Image.Image, time: float, end: float, stored: Image.Image | None = None) -> Shown:
    """``stored`` is what ``picture`` was made of, where it may be transparent."""

    def alpha() -> np.ndarray | None:
        return None if stored is None else np.asarray(ImageOps.exif_transpose(stored).convert("RGBA").getchannel("A"))

    def small(side: int) -> np.ndarray:
        reduced = picture.copy()
        reduced.thumbnail((side, side), Image.Resampling.BOX)
        return np.ascontiguousarray(np.asarray(reduced)[..., ::-1])

    return Shown(time, end, 1.0, lambda: np.asarray(picture), small, alpha)


def _numbered(footage: Footage, start: float) -> Iterator[Shown]:
    first = max(0, min(len(footage.pictures) - 1, int(start * footage.rate)))
    for number in range(first, len(footage.pictures)):
        with picture_at(footage.path / footage.pictures[number]) as image:
            picture = as_looked_at(image)
        yield _pictured(picture, number / footage.rate, (number + 1) / footage.rate)


def _animation(footage: Footage) -> Iterator[Shown]:
    _refuse_shortened(footage, footage.length())
    with footage.open() as file, open_picture(file) as image:
        numbers, start = frame_numbers(image), 0.0
        count = len(numbers)
        to_first_frame(image)
        for number in numbers:
            image.seek(number)
            image.load()
            duration = shown_seconds(float(image.info.get("duration", 0) or 0), count)
            picture = on_white(image).copy() if count > 1 else as_looked_at(image)
            yield _pictured(picture, start, start + duration, image)
            start += duration


def _sought(footage: Footage, start: float, origin: float) -> Iterator[Shown]:
    for back in _LOOK_BACK:
        at_start = start - back <= 0
        frames = _container(footage, "stamped", 0.0 if at_start else start - back, None if at_start else origin)
        with contextlib.closing(frames):
            first = next(frames, None)
            # A container without an index may land behind the wanted time.
            if at_start or (first is not None and first.time <= start + SAME_TIME):
                if first is not None:
                    yield first
                yield from frames
                return


def _container(
    footage: Footage, timing: Timing, start: float, origin: float | None, threads: int = 1
) -> Generator[Shown, None, None]:
    with _opened(footage) as (container, stream):
        stream.codec_context.thread_count = threads
        if threads != 1:
            stream.thread_type = "AUTO"
        _refuse_cut_off(footage, stream)
        if origin is not None and stream.time_base:
            container.seek(math.floor((origin + start) / stream.time_base), stream=stream, backward=True)
        yield from _timed(footage, stream, timing, origin)


@contextlib.contextmanager
def _opened(footage: Footage) -> Iterator[tuple[Any, Any]]:
    """The container and its moving stream."""
    with opened_container(footage) as container:
        stream = _moving(container)
        if stream is None:
            raise VideoError(footage.label, "it has no video stream")
        if stream.codec_context is None:
            raise VideoError(footage.label, "its codec is unknown here")
        yield container, stream


def _moving(container: Any) -> Any:
    """The video stream that players show: the one that its file says is to be shown, or the best of several, and never
    the cover of a record or a film."""
    moving = [one for one in container.streams.video if not one.disposition & type(one.disposition).attached_pic]
    # Matroska says so of every track unless told otherwise.
    said = [one for one in moving if one.disposition & type(one.disposition).default]
    best = said[0] if len(said) == 1 else container.streams.best("video")
    return best if best in moving else next(iter(moving), None)


def _timed(footage: Footage, stream: Any, timing: Timing, origin: float | None) -> Iterator[Shown]:
    """Decoded frames with their times; ``origin`` None takes the first one's as zero."""
    painter = _Painter(float(stream.sample_aspect_ratio or 1) or 1.0)
    step = 1 / stated_rate(stream)
    shown, last, stamp_before, sought = 0, float("-inf"), None, origin is not None
    for frame in decoded(stream, sought):
        if frame.is_corrupt:
            if shown:
                raise VideoError(footage.label, f"its picture is damaged at {last:.2f} s")
            continue  # before the first key frame, as in recordings that were switched on half-way
        stamp = None if frame.pts is None else float(frame.pts * frame.time_base)
        if timing != "counted" and stamp is not None and stamp_before is not None:
            if abs(stamp - stamp_before) <= SAME_TIME:
                continue  # the same time twice: the second is never shown
        stamp_before = stamp
        time = _time(stamp, timing, shown, step, last)
        origin = time if origin is None else origin
        held = float(frame.duration * frame.time_base) if frame.duration and timing != "counted" else step
        last, shown = time, shown + 1
        yield painter.shown(frame, time - origin, time - origin + held, time)
    if not shown and not sought:
        raise VideoError(footage.label, "it has no frames")


def _time(stamp: float | None, timing: Timing, shown: int, step: float, last: float) -> float:
    """When a frame is shown, by its container's ``stamp`` or as ``timing`` says; ``last`` is the frame's before it."""
    if timing == "counted":
        return shown * step
    if stamp is not None and stamp > last + SAME_TIME:
        return stamp
    if timing == "stamped":
        raise OutOfOrderError
    return 0.0 if last == float("-inf") else last + step


def _refuse_cut_off(footage: Footage, stream: Any) -> None:
    """mp4 and mov list every packet's place before the first one is read: a place behind the end was cut off."""
    length = footage.length()
    entries = stream.index_entries
    if "mov" not in stream.container.format.name:
        _refuse_shortened(footage, length)
        return
    missing = sum(1 for entry in entries if entry.pos + entry.size > length)
    if missing:
        raise VideoError(footage.label, f"it is cut off: {missing} of {len(entries)} frames lie behind its end")


def _refuse_shortened(footage: Footage, length: int) -> None:
    with footage.open() as file:
        missing = missing_bytes(file, length)
    if missing:
        raise VideoError(footage.label, f"it is cut off: {missing} of {length + missing} bytes are missing")


class _Painter:
    """Turns decoded frames into pixels; keeps the converter, which is costly to make, and the orientation."""

    def __init__(self, aspect: float) -> None:
        from av.video.reformatter import VideoReformatter

        # One each for whole and reduced frames: a converter that changes sizes is made anew each time.
        self.whole, self.reduced, self.aspect = VideoReformatter(), VideoReformatter(), aspect
        self.matrix: tuple[int, int, int, int] | None = None

    def shown(self, frame: Any, time: float, end: float, stamp: float) -> Shown:
        if self.matrix is None:
            self.matrix = _display_matrix(frame)
        sideways = self.matrix[0] == 0
        aspect = 1 / self.aspect if sideways else self.aspect
        hdr = CURVES.get(int(frame.color_trc), "")
        whole, small = lambda: self.pixels(frame, hdr), lambda side: self.small(frame, side)
        return Stamped(time, end, aspect, whole, small, lambda: self.alpha(frame), stamp, hdr)

    def pixels(self, frame: Any, curve: str) -> np.ndarray:
        alpha = any(component.is_alpha for component in frame.format.components)
        form = "rgba" if alpha else "rgb48le" if curve else "rgb24"
        pixels = self.whole.reformat(frame, format=form, **_colours(frame)).to_ndarray()
        if form == "rgb48le":
            pixels = to_sdr(pixels, curve)
        elif alpha or frame.color_primaries in WIDE:
            picture = Image.fromarray(pixels)
            if frame.color_primaries in WIDE:
                picture.info[STATED] = (int(frame.color_primaries), SRGB_CURVE)
            pixels = np.asarray(on_white(picture))
        return np.ascontiguousarray(_upright(pixels, self.matrix or (1, 0, 0, 1)))

    def alpha(self, frame: Any) -> np.ndarray | None:
        if not any(component.is_alpha for component in frame.format.components):
            return None
        return _upright(self.whole.reformat(frame, format="rgba").to_ndarray()[..., 3], self.matrix or (1, 0, 0, 1))

    def small(self, frame: Any, side: int) -> np.ndarray:
        scale = min(1.0, side / max(frame.width, frame.height))
        width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
        reduced = self.reduced.reformat(frame, width, height, "bgr24", interpolation="AREA", **_colours(frame))
        return reduced.to_ndarray()


@dataclass(frozen=True)
class Stamped(Shown):
    """A frame of a container, with ``stamp``, the container's own time of it; ``transfer`` names HDR's curves."""

    stamp: float = 0.0
    transfer: str = ""


def _colours(frame: Any) -> dict[str, Any]:
    """Untagged video of 720 lines and more is BT.709 to every player; libraries take it for BT.601."""
    untagged = frame.colorspace == _UNSPECIFIED and frame.format.name.startswith("yuv")
    return {"src_colorspace": _BT709} if untagged and frame.height >= _HD_LINES else {}


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Signs of (a, b, c, d) where a pixel (x, y) is shown at (a x + c y, b x + d y); upright for slanted matrices."""
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(side)[:20], np.int32))
            signs = (int(np.sign(a)), int(np.sign(b)), int(np.sign(c)), int(np.sign(d)))
            if (a == d == 0 and b and c) or (b == c == 0 and a and d):
                return signs
    return (1, 0, 0, 1)


def _upright(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    a, b, c, d = matrix
    if a == 0:
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return pixels[::-1] if down < 0 else pixels
