"""Whole videos in memory, or chunk by chunk, with their own timestamps, and what a file says before that."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from inflate.cancelling import until_cancelled
from inflate.data.reading.containers import is_picture
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import (
    OutOfOrderError,
    Shown,
    Timing,
    explained,
    loops,
    packet_spans,
    picture_spans,
    play_count,
    shown_frames,
    stored_size,
)
from inflate.data.reading.pictures import VideoError

Fit = Literal["crop", "pad"]
Source = str | Path | bytes | Footage


@dataclass(frozen=True)
class DecodedVideo:
    """A decoded file: frame ``i`` is shown from ``timestamps[i]`` until the next one's, the last until ``duration``.

    ``frames`` is uint8 (F, H, W, 3), transparent pixels composited on white; ``timestamps`` float64 (F,) and
    ``duration`` are seconds, the first timestamp is 0; ``loop`` says whether the file itself asks to be repeated.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    duration: float
    loop: bool

    @property
    def fps(self) -> float:
        """Mean frames per second; 0 for a still without a duration."""
        return len(self.frames) / self.duration if self.duration > 0 else 0.0


def fit_square(picture: Image.Image, size: int | None, fit: Fit = "crop", pixel_aspect: float = 1.0) -> Image.Image:
    """Make an RGB picture ``size`` x ``size`` (None: as large as its own square).

    ``crop`` takes the centre square, ``pad`` adds white. ``pixel_aspect`` is the width of one stored pixel over its
    height. Whole-number reductions average boxes of pixels, all others use Lanczos.
    """
    width, height = picture.size[0] * pixel_aspect, float(picture.size[1])
    side = min(width, height) if fit == "crop" else max(width, height)
    target = size or max(1, round(side))
    if fit == "pad" and abs(width - height) >= 1:
        square = Image.new("RGB", (round(side / pixel_aspect), round(side)), (255, 255, 255))
        square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        picture = square
    crop_w, crop_h = min(side / pixel_aspect, picture.width), min(side, picture.height)
    return _centre(picture, crop_w, crop_h, target, target)


def fit_size(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Make an RGB picture ``height`` x ``width`` of the largest part of that shape in its centre; as ``fit_square``."""
    crop_w = min(picture.width, picture.height * width / height)
    crop_h = min(picture.height, picture.width * height / width)
    return _centre(picture, crop_w, crop_h, height, width)


def _centre(picture: Image.Image, crop_w: float, crop_h: float, height: int, width: int) -> Image.Image:
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    if (crop_w, crop_h) == (width, height) and left == int(left) and top == int(top):
        return picture.crop((int(left), int(top), int(left) + width, int(top) + height))
    whole = crop_w % width == 0 and crop_h % height == 0 and crop_w * height == crop_h * width
    resample = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    return picture.resize((width, height), resample, box=(left, top, left + crop_w, top + crop_h))


def decode_video(
    source: Source, size: int | None = None, fit: Fit = "crop", name: str | None = None, max_frames: int | None = None
) -> DecodedVideo:
    """Decode a whole file, the bytes of one (then ``name`` with its suffix says what they are), or listed footage.

    With ``size`` every frame is made square (``fit_square``) while decoding, so a long 4K file needs little memory;
    without it frames keep their own shape, as a player shows it. ``max_frames`` stops early. Raises ``VideoError`` (an
    ``InputError``) for anything unreadable: not a video, truncated, no frames.
    """
    footage = _footage(source, name)
    try:
        return _decode(footage, "stamped", size, fit, max_frames)
    except OutOfOrderError:  # AVI, say, has no times of showing, and FFmpeg makes up wrong ones
        return _decode(footage, "counted", size, fit, max_frames)


def _decode(footage: Footage, timing: Timing, size: int | None, fit: Fit, max_frames: int | None) -> DecodedVideo:
    frames: list[np.ndarray] = []
    starts: list[float] = []
    end = 0.0
    for shown in until_cancelled(shown_frames(footage, timing, threads=0)):
        frames.append(_shaped(shown, size, fit))
        starts.append(shown.time)
        end = shown.end
        if max_frames is not None and len(frames) >= max_frames:
            break
    if not frames:
        raise VideoError(footage.label, "it has no frames")
    if any(f.shape != frames[0].shape for f in frames):
        raise VideoError(footage.label, "its frames change size half-way")
    timestamps = np.asarray(starts, dtype=np.float64) - starts[0]
    return DecodedVideo(np.stack(frames), timestamps, float(end - starts[0]), loops(footage))


def _shaped(shown: Shown, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
    """A frame made square, or with square pixels: as wide as its pixels are, and as high as it was."""
    pixels = shown.pixels()
    if size is not None:
        return np.asarray(fit_square(Image.fromarray(pixels), size, fit, shown.aspect))
    height, width = pixels.shape[0], shown_width(pixels.shape[1], shown.aspect)
    if width == pixels.shape[1]:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def shown_width(stored: int, aspect: float) -> int:
    """Columns of square pixels for ``stored`` ones that are ``aspect`` times as wide as high."""
    return stored if abs(aspect - 1) < 1e-6 else max(1, round(stored * aspect))


@dataclass(frozen=True)
class VideoFacts:
    """What a file shows, found without decoding more than its first frame; ``width`` and ``height`` are upright, in
    square pixels, ``fps`` is the mean rate."""

    num_frames: int
    duration: float  # seconds
    fps: float
    width: int
    height: int


def video_facts(source: Source, name: str | None = None) -> VideoFacts:
    """Length, frame rate and size of a file. Packets are counted, because headers are wrong about trimmed files.

    Raises:
        VideoError: not a video, or it holds no frames.
    """
    footage = _footage(source, name)
    frames = shown_frames(footage, "mended", threads=0)
    with contextlib.closing(frames):  # pyright: ignore[reportArgumentType]  # a generator
        first = next(frames, None)
        if first is None:
            raise VideoError(footage.label, "it has no frames")
        height, width = first.pixels().shape[:2]
        width = shown_width(width, first.aspect)
    times = _times(footage)
    return VideoFacts(len(times.spans), times.duration, times.fps, width, height)


def stated_size(source: Source, name: str | None = None) -> tuple[int, int, int]:
    """Width and height as stored, and the number of frames, by headers and packets alone: no pixel is decoded.

    Raises:
        VideoError: not a video.
    """
    return stored_size(_footage(source, name))


@dataclass(frozen=True)
class Timeline:
    """When the frames of a file are shown: ``spans`` of (start, end) in seconds from the first one's start, which is at
    ``origin`` on the file's own clock; ``loops`` says how many times it is shown as a whole, 0 for ever or unsaid."""

    spans: list[tuple[float, float]]
    origin: float = 0.0
    loops: int = 0

    @property
    def duration(self) -> float:
        """Seconds until the last frame ends; 0 for a still."""
        return self.spans[-1][1]

    @property
    def fps(self) -> float:
        """Mean frames per second; 1 for a still."""
        return len(self.spans) / self.duration if self.duration > 0 else 1.0

    def even(self) -> bool:
        """Whether all are shown for as long, within the thousandths of a second that containers round to."""
        step = self.duration / len(self.spans)
        return all(abs(start - number * step) < 2e-3 for number, (start, _) in enumerate(self.spans))

    def raised(self, rate: int) -> "Timeline":
        """Of ``rate`` times as many frames: new ones stand evenly between each two, which stay where they are."""
        starts = [
            start + (later - start) * part / rate
            for (start, _), (later, _) in pairwise(self.spans)
            for part in range(rate)
        ]
        starts.append(self.spans[-1][0])
        return Timeline(list(zip(starts, [*starts[1:], self.duration], strict=True)), self.origin, self.loops)

    def extended(self, count: int) -> "Timeline":
        """With ``count`` more frames behind it, each shown for as long as the others are on average."""
        step = 1 / self.fps
        more = [(self.duration + number * step, self.duration + (number + 1) * step) for number in range(count)]
        return Timeline([*self.spans, *more], self.origin, self.loops)


def frame_times(source: Source, name: str | None = None) -> Timeline:
    """When the frames of a file are shown, without decoding a container, a gif or a webp.

    Raises:
        VideoError: not a video, or it holds no frames.
    """
    return _times(_footage(source, name))


def _times(footage: Footage) -> Timeline:
    with explained(footage):
        picture = is_picture(footage)
    if picture:
        return Timeline(picture_spans(footage), loops=play_count(footage) or 0)
    return Timeline(*packet_spans(footage))


def iterate_frames(source: Source, frames_at_once: int = 16, name: str | None = None) -> Iterator[np.ndarray]:
    """Decode a file in chunks of uint8 frames (n, H, W, 3) that are not kept, so that its length costs no memory.

    Raises:
        VideoError: as :func:`decode_video`, once the damaged place is reached.
    """
    footage = _footage(source, name)
    held: list[np.ndarray] = []
    shape = None
    for shown in until_cancelled(shown_frames(footage, "mended", threads=0)):
        frame = _shaped(shown)
        if shape not in (None, frame.shape):
            raise VideoError(footage.label, "its frames change size half-way")
        shape = frame.shape
        held.append(frame)
        if len(held) == frames_at_once:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
    if shape is None:
        raise VideoError(footage.label, "it has no frames")


def iterate_alpha(source: Source, name: str | None = None) -> Iterator[np.ndarray]:
    """How opaque the pixels of each frame are, uint8 (H, W), as :func:`iterate_frames`; nothing for files without."""
    footage = _footage(source, name)
    for shown in until_cancelled(shown_frames(footage, "mended", threads=0)):
        alpha = shown.alpha()
        if alpha is None:
            return
        width = shown_width(alpha.shape[1], shown.aspect)
        yield alpha if width == alpha.shape[1] else np.asarray(Image.fromarray(alpha).resize((width, len(alpha))))


def _footage(source: Source, name: str | None) -> Footage:
    if isinstance(source, Footage):
        return source
    label = name or (str(source) if not isinstance(source, bytes) else "a file in memory")
    suffix = Path(label).suffix.lower()
    if isinstance(source, bytes):
        return Footage(label, Path(label), suffix, data=source)
    if Path(source).is_dir():
        raise VideoError(
            label, "it is a folder, and pictures in folders are not put together here", "name a video file"
        )
    if not Path(source).is_file():
        raise VideoError(label, "there is no such file", "check its name")
    return Footage(label, Path(source), suffix)
