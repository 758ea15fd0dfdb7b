"""Reading moving pictures with their own timestamps: Pillow for webp, gif and png, PyAV for everything else."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageFile

from inflate.errors import InputError

PILLOW_SUFFIXES = frozenset({".webp", ".gif", ".png", ".apng", ".jpg", ".jpeg"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".webp", ".gif", ".apng"})
Fit = Literal["crop", "pad"]
Source = str | Path | bytes

# Browsers show a frame with a duration of 0 ms for a tenth of a second.
_ZERO_DURATION_MS = 100.0
_COMPLETE = 0.9


class VideoError(InputError):
    """A file that could not be read as a video; the sentence names the file and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"cannot read {name} as a video: {reason}; convert it to mp4, webm, mov, gif or webp again")


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


def on_white(picture: Image.Image) -> Image.Image:
    """An RGB picture with every transparent pixel composited on white."""
    if picture.mode == "RGB":
        return picture
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


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
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    if crop_w == crop_h == target and left == int(left) and top == int(top):
        return picture.crop((int(left), int(top), int(left) + target, int(top) + target))
    whole = crop_w % target == 0 and crop_h % target == 0 and pixel_aspect == 1.0
    resample = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    return picture.resize((target, target), resample, box=(left, top, left + crop_w, top + crop_h))


def decode_video(
    source: Source, size: int | None = None, fit: Fit = "crop", name: str | None = None, max_frames: int | None = None
) -> DecodedVideo:
    """Decode a whole file, or the bytes of one (then ``name`` with its suffix says what they are).

    With ``size`` every frame is made square (``fit_square``) while decoding, so a long 4K file needs little memory;
    without it frames keep their own size. ``max_frames`` stops early. Raises ``VideoError`` (an ``InputError``) for
    anything unreadable: not a video, truncated, no frames.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "a file in memory")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise VideoError(label, "there is no such file")
    suffix = Path(label).suffix.lower()
    reader = _read_pillow if suffix in PILLOW_SUFFIXES else _read_av
    frames: list[np.ndarray] = []
    starts: list[float] = []
    end, loop = 0.0, False
    for picture, start, end, loop, pixel_aspect in reader(source, label):  # noqa: B007
        if size is not None or pixel_aspect != 1.0:
            picture = fit_square(picture, size, fit, pixel_aspect)
        frames.append(np.asarray(picture))
        starts.append(start)
        if max_frames is not None and len(frames) >= max_frames:
            break
    if not frames:
        raise VideoError(label, "it has no frames")
    if any(f.shape != frames[0].shape for f in frames):
        raise VideoError(label, "its frames change size half-way")
    timestamps = np.asarray(starts, dtype=np.float64) - starts[0]
    return DecodedVideo(np.stack(frames), timestamps, float(end - starts[0]), loop)


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of itself before its frames are decoded; ``num_frames`` is None where only decoding tells."""

    num_frames: int | None
    duration: float  # seconds
    fps: float
    width: int
    height: int


def video_facts(source: Source, name: str | None = None) -> VideoFacts:
    """Length, frame rate and size of a file, read from its headers.

    Raises:
        VideoError: not a video, or it holds no frames.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "a file in memory")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise VideoError(label, "there is no such file")
    if Path(label).suffix.lower() in PILLOW_SUFFIXES:
        return _pillow_facts(source, label)
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            if not container.streams.video:
                raise VideoError(label, "it has no video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 25)
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            seconds = seconds or (container.duration or 0) / av.time_base
            return VideoFacts(stream.frames or None, seconds, fps, stream.width, stream.height)
    except (FFmpegError, OSError, ValueError, EOFError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(label, _plain(error)) from error


def _pillow_facts(source: Source, label: str) -> VideoFacts:
    count, end, picture = 0, 0.0, None
    for picture, _, end, _, _ in _read_pillow(source, label):  # noqa: B007
        count += 1
    if picture is None:
        raise VideoError(label, "it has no frames")
    return VideoFacts(count, end, count / end if end > 0 else 1.0, picture.width, picture.height)


def iterate_frames(source: Source, frames_at_once: int = 16, name: str | None = None) -> Iterator[np.ndarray]:
    """Decode a file in chunks of uint8 frames (n, H, W, 3) that are not kept, so that its length costs no memory.

    Raises:
        VideoError: as :func:`decode_video`, once the damaged place is reached.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "a file in memory")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise VideoError(label, "there is no such file")
    reader = _read_pillow if Path(label).suffix.lower() in PILLOW_SUFFIXES else _read_av
    held: list[np.ndarray] = []
    size, count = None, 0
    for picture, _, _, _, pixel_aspect in reader(source, label):
        if pixel_aspect != 1.0:
            picture = picture.resize((max(1, round(picture.width * pixel_aspect)), picture.height))
        if size not in (None, picture.size):
            raise VideoError(label, "its frames change size half-way")
        size, count = picture.size, count + 1
        held.append(np.asarray(picture))
        if len(held) == frames_at_once:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
    if not count:
        raise VideoError(label, "it has no frames")


_Frame = tuple[Image.Image, float, float, bool, float]


def _read_pillow(source: Source, label: str) -> Iterator[_Frame]:
    """Yield (RGB picture, start s, end s, loops, pixel aspect) for each frame of a file Pillow animates."""
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with Image.open(io.BytesIO(_with_alpha_flag(content))) as image:
            count = getattr(image, "n_frames", 1)
            loop = count > 1 and image.info.get("loop") == 0
            start_ms = 0.0
            for index in range(count):
                image.seek(index)
                image.load()
                duration = float(image.info.get("duration", 0) or 0)
                if count > 1 and duration <= 0:
                    duration = _ZERO_DURATION_MS
                picture = on_white(image)
                yield picture, start_ms / 1000, (start_ms + duration) / 1000, loop, 1.0
                start_ms += duration
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(label, _plain(error)) from error


def _with_alpha_flag(content: bytes) -> bytes:
    """An animated webp that says its canvas may be transparent.

    Its frames need not cover the canvas, and what they leave uncovered is transparent (WebP container specification,
    "Animation"). Encoders leave the flag out when the frames themselves are opaque; Pillow then shows black.
    """
    header = content[:21]
    if header[:4] != b"RIFF" or header[8:16] != b"WEBPVP8X" or len(header) < 21 or not header[20] & 0x02:
        return content
    return content[:20] + bytes([header[20] | 0x10]) + content[21:]


def _read_av(source: Source, label: str) -> Iterator[_Frame]:
    """Yield (RGB picture, start s, end s, loops, pixel aspect) for each frame PyAV decodes, in order of showing."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            if not container.streams.video:
                raise VideoError(label, "it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            step = 1 / float(stream.average_rate or 25)
            aspect = float(stream.sample_aspect_ratio or 1) or 1.0
            last, shown = -1.0, 0
            for frame in container.decode(stream):
                start = frame.time if frame.time is not None else shown * step
                shown += 1
                if start <= last and shown > 1:
                    continue  # a repeated timestamp is never shown
                last = start
                held = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
                turned = int(frame.rotation) % 360
                has_alpha = any(component.is_alpha for component in frame.format.components)
                pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
                if turned % 90 == 0:
                    pixels = np.rot90(pixels, turned // 90)
                picture = on_white(Image.fromarray(np.ascontiguousarray(pixels)))
                sideways = turned in (90, 270)
                yield picture, start, start + held, False, 1 / aspect if sideways else aspect
            # FFmpeg treats a file that stops half-way as one that ends there; edit lists may hide a few frames.
            if shown < _COMPLETE * stream.frames:
                raise VideoError(label, f"it is cut off after {shown} of {stream.frames} frames")
    except (FFmpegError, OSError, ValueError, EOFError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(label, _plain(error)) from error


def _plain(error: BaseException) -> str:
    """The reason in a few words, without the path and the numbers libraries put around it."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture file Pillow knows"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".").strip()


# Half a picture must count as unreadable, whatever another library set.
ImageFile.LOAD_TRUNCATED_IMAGES = False
