"""Writing videos (mp4, webp, gif, told by the suffix) and contact sheets; a file appears whole or not at all."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inflate.cancelling import until_cancelled
from inflate.data.animations import Frames, write_gif, write_webp
from inflate.data.sound import Sound
from inflate.data.spool import FrameSpool
from inflate.errors import InputError
from inflate.places import check_place
from inflate.staging import check_free, new_file

VIDEO_SUFFIXES = (".mp4", ".webp", ".gif")
SHEET_COLUMNS = 16
_GAP = 4  # pixels between the pictures of a contact sheet
_BT709, _LIMITED = 1, 1  # of ITU-T H.273, and swscale's number for the range
_AS_709 = {"dst_colorspace": _BT709, "dst_color_range": _LIMITED}
_MP4_PIXELS = 139_264 * 16 * 16  # of H.264's highest level, 6.2
_LARGE_PIXELS = 2_200_000  # more than 1080p
_HELD_BYTES = 512 * 2**20  # of the frames of an animation
_TICKS = 90_000  # of a second, in which uneven times are counted
_GIF_FPS = 50  # delays below 20 ms are shown as a tenth of a second
_LABEL_SIZE = 14  # pixels

Resample = Literal["nearest", "lanczos"]


def check_output(path: str | Path, suffixes: Sequence[str] = VIDEO_SUFFIXES, overwrite: bool = False) -> Path:
    """``path`` if something can be written there.

    Raises:
        InputError: an unknown suffix, an existing file without ``overwrite``, a folder of that name, an address, a name
            that the file system cannot have, or a folder on the way that is a file.
    """
    if not str(path).strip() or Path(path).name == "":
        raise InputError("The output has no name; give a file such as out.mp4.")
    path = Path(path)
    check_place(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path} ends in {path.suffix!r}; it must end in one of {', '.join(suffixes)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file.")
    check_free(path, overwrite)
    return path


def write_video(
    path: str | Path,
    frames: Frames | Iterable[np.ndarray],
    fps: float,
    overwrite: bool = False,
    spans: Sequence[tuple[float, float]] = (),
    sound: Sound | None = None,
    loops: int = 0,
) -> Path:
    """Write a video file.

    mp4 is H.264 in 4:2:0, which every player shows; an odd side grows by one pixel, the edge repeated. gif counts time
    in hundredths and webp in thousandths of a second: each frame's end is rounded, so the whole is never off by more.

    Args:
        path: ends in .mp4, .webp or .gif; folders on the way are made.
        frames: uint8 (F, H, W, 3), or with alpha (F, H, W, 4), of which an mp4 shows what is transparent as white; or
            chunks of such frames in order, of which one at a time is in memory: a gif and a webp have them lie in a
            temporary file.
        fps: frames per second.
        overwrite: replace an existing file.
        spans: (start, end) in seconds of each frame, where they are not evenly spaced.
        sound: what goes along with the pictures in an mp4.
        loops: how many times a gif or webp is shown, 0 for ever.

    Raises:
        InputError: a suffix, an array or a frame rate that cannot be written, no frames, or an existing file.
    """
    path = check_output(path, overwrite=overwrite)
    if not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}.")
    with new_file(path, overwrite) as partial:
        if path.suffix.lower() == ".mp4":
            _write_mp4(partial, (opaque(chunk) for chunk in _chunks_of(frames)), fps, spans, sound)
        else:
            _write_animation(partial, _held_frames(frames), fps, spans, loops)
    return path


def _chunks_of(frames: Frames | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    if isinstance(frames, np.ndarray):
        return _checked([frames])
    return _checked(frames.chunks() if isinstance(frames, FrameSpool) else frames)


def _held_frames(frames: Frames | Iterable[np.ndarray]) -> Frames:
    """Frames of which any can be looked at."""
    if isinstance(frames, np.ndarray):
        [frames] = _checked([frames])
    return frames if isinstance(frames, np.ndarray | FrameSpool) else FrameSpool(_chunks_of(frames))


def _checked(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    picture = None
    for frames in chunks:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4) or 0 in frames.shape:
            raise InputError(f"A video is uint8 (frames, height, width, 3 or 4), got {frames.dtype} {frames.shape}.")
        picture = picture or frames.shape[1:]
        if frames.shape[1:] != picture:
            raise InputError(f"The frames of a video must have one size, got {picture} and then {frames.shape[1:]}.")
        yield frames
    if picture is None:
        raise InputError("A video needs at least one frame.")


def check_room(path: str | Path, num_frames: int, size: tuple[int, int]) -> None:
    """Raise ``InputError`` where a file of that suffix cannot hold so many frames of ``size`` (height, width).

    An mp4 is written frame by frame, up to the largest pictures of H.264; animations lie in memory as a whole.
    """
    (height, width), mp4 = size, Path(path).suffix.lower() == ".mp4"
    if mp4 and height * width > _MP4_PIXELS:
        raise InputError(
            f"Frames of {width} x {height} px are larger than an mp4 can have ({_MP4_PIXELS / 1e6:.0f} million pixels, "
            "such as 7680 x 4320); take a smaller --factor."
        )
    if not mp4 and num_frames * height * width * 3 > _HELD_BYTES:
        raise InputError(
            f"{num_frames} frames of {width} x {height} px are {num_frames * height * width * 3 / 1e9:.1f} GB, and a "
            f"{Path(path).suffix[1:]} takes {_HELD_BYTES / 1e9:.1f} GB at most; write an mp4."
        )


def shown_otherwise(path: str | Path, size: tuple[int, int], fps: float) -> str:
    """A sentence where a file of that suffix cannot show frames of ``size`` (height, width) as they are; else empty."""
    suffix, (height, width) = Path(path).suffix.lower(), size
    if suffix == ".mp4" and (height % 2 or width % 2):
        wide, high = width + width % 2, height + height % 2
        return f"An mp4 has even sides: frames of {width} x {height} px get an edge pixel more, {wide} x {high}."
    if suffix == ".gif" and fps > _GIF_FPS:
        return f"Browsers show {_GIF_FPS} frames of a gif a second at most, not {fps:g}; write webp or mp4."
    return ""


def opaque(frames: np.ndarray) -> np.ndarray:
    """Frames (F, H, W, 4) composited on white, (F, H, W, 3); those without alpha as they are."""
    if frames.shape[-1] == 3:
        return frames
    alpha = frames[..., 3:].astype(np.float32) / 255
    return (frames[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def frame_durations(num_frames: int, fps: float, tick_ms: int) -> list[int]:
    """How long to show each frame, in milliseconds and multiples of ``tick_ms``, none shorter than one tick.

    The end of each frame is rounded rather than its length, so that errors do not add up.
    """
    return _durations([(frame + 1) * 1000 / fps for frame in range(num_frames)], tick_ms)


def _durations(ends_ms: Sequence[float], tick_ms: int) -> list[int]:
    """As :func:`frame_durations`, of frames that are shown until ``ends_ms``."""
    ticks = [0, *(math.floor(end / tick_ms + 0.5) for end in ends_ms)]
    return [tick_ms * max(1, end - start) for start, end in pairwise(ticks)]


def enlarge(frames: np.ndarray, scale: int, resample: Resample = "nearest") -> np.ndarray:
    """Frames (F, H, W, 3) enlarged by a whole number for viewing; no detail is added."""
    if scale < 1 or scale > 64:
        raise InputError(f"scale must lie between 1 and 64, got {scale}.")
    if scale == 1:
        return frames
    if resample == "nearest":
        return frames.repeat(scale, axis=1).repeat(scale, axis=2)
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])


def contact_sheet(rows: Sequence[np.ndarray], labels: Sequence[str], columns: int = SHEET_COLUMNS) -> Image.Image:
    """One picture with a labelled row of frames per video.

    Args:
        rows: uint8 (F, H, W, 3) each; numbers of frames and sizes may differ.
        labels: one per row, written above it.
        columns: at most so many frames per row, evenly spread, the first and the last among them.
    """
    if not rows or len(rows) != len(labels):
        raise InputError(f"A contact sheet needs rows and a label for each, got {len(rows)} and {len(labels)}.")
    shown = [row[spread(len(row), columns)] for row in rows]
    width = max(len(row) * (row.shape[2] + _GAP) for row in shown) + _GAP
    height = sum(row.shape[1] + _LABEL_SIZE + 3 * _GAP for row in shown) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LABEL_SIZE)
    top = _GAP
    for row, label in zip(shown, labels, strict=True):
        draw.text((_GAP, top), label, fill="black", font=font)
        top += _LABEL_SIZE + 2 * _GAP
        for column, frame in enumerate(row):
            sheet.paste(Image.fromarray(frame), (_GAP + column * (row.shape[2] + _GAP), top))
        top += row.shape[1] + _GAP
    return sheet


def write_contact_sheet(
    path: str | Path,
    rows: Sequence[np.ndarray],
    labels: Sequence[str],
    columns: int = SHEET_COLUMNS,
    overwrite: bool = False,
) -> Path:
    """Write :func:`contact_sheet` as a PNG.

    Raises:
        InputError: not a .png, or an existing file without ``overwrite``.
    """
    path = check_output(path, (".png",), overwrite)
    sheet = contact_sheet(rows, labels, columns)
    with new_file(path, overwrite) as partial:
        sheet.save(partial, format="PNG")
    return path


def write_text(path: str | Path, text: str, overwrite: bool = False) -> Path:
    """Write a JSON file, UTF-8.

    Raises:
        InputError: not a .json, or an existing file without ``overwrite``.
    """
    path = check_output(path, (".json",), overwrite)
    with new_file(path, overwrite) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def spread(count: int, columns: int) -> np.ndarray:
    """Numbers of at most ``columns`` of ``count`` frames, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, columns)).round().astype(int)


def _write_mp4(
    path: Path, chunks: Iterator[np.ndarray], fps: float, spans: Sequence[tuple[float, float]], sound: Sound | None
) -> None:
    import av
    from av.video.reformatter import VideoReformatter

    first = next(chunks)
    height, width = first.shape[1:3]
    # FFmpeg takes what stands before a colon for a protocol, unless a slash comes first.
    place, options = str(path.absolute()), {"movflags": "+faststart", "protocol_whitelist": "file"}
    with av.open(place, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt, painter = "yuv420p", VideoReformatter()
        # Players take untagged video for BT.601 or BT.709 by its height; tagged, it has the same colours at every size.
        stream.codec_context.color_primaries = stream.codec_context.color_trc = _BT709
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT709, _LIMITED
        # With macroblock trees (x264 165 on x86) the same frames now and then give other bytes in small pictures.
        stream.options = {"crf": "12", "preset": "medium", "x264-params": f"no-mbtree=1{_sparing(height * width)}"}
        if spans:
            # mp4 takes how long a frame is shown from the order of decoding, which is that of showing without B-frames.
            stream.options |= {"bf": "0"}
            stream.codec_context.time_base = Fraction(1, _TICKS)
        held: dict[int, int] = {}
        played = nullcontext() if sound is None else sound.beside(container)
        with played as play:
            for number, frame in enumerate(until_cancelled(chain(first, chain.from_iterable(chunks)))):
                even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                picture = painter.reformat(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24"), format="yuv420p", **_AS_709
                )
                picture.color_primaries = picture.color_trc = _BT709
                start, end = _span(spans, number, fps)
                if spans:
                    picture.pts, picture.time_base = round(start * _TICKS), Fraction(1, _TICKS)
                    held[picture.pts] = round((end - start) * _TICKS)
                if play is not None:
                    play(start)
                container.mux(_held(stream.encode(picture), held))
            container.mux(_held(stream.encode(), held))
            if play is not None:
                play(math.inf)


def _sparing(pixels: int) -> str:
    """Options of x264 for large frames, of which it otherwise holds many, and more with more cores."""
    if pixels <= _LARGE_PIXELS:
        return ""
    return f":threads={max(1, 24_000_000 // pixels)}:rc-lookahead=0:bframes=0:ref=1"


def _held(packets: list[Any], held: Mapping[int, int]) -> list[Any]:
    """Packets that say how long their frame is shown; muxers guess that of the last one from those before it."""
    for packet in packets:
        if packet.pts is not None and packet.time_base is not None:
            ticks = held.get(round(packet.pts * packet.time_base * _TICKS))
            if ticks is not None:
                packet.duration = round(ticks / _TICKS / packet.time_base)
    return packets


def _span(spans: Sequence[tuple[float, float]], number: int, fps: float) -> tuple[float, float]:
    if number < len(spans):
        return spans[number]
    end = spans[-1][1] if spans else 0.0  # frames that nobody counted come after the last one
    return end + (number - len(spans)) / fps, end + (number + 1 - len(spans)) / fps


def _write_animation(path: Path, frames: Frames, fps: float, spans: Sequence[tuple[float, float]], loops: int) -> None:
    tick = 10 if path.suffix == ".gif" else 1
    if spans:  # each frame is shown until the next one
        durations = _durations([1000 * end for end in (*(start for start, _ in spans[1:]), spans[-1][1])], tick)
    else:
        durations = frame_durations(len(frames), fps, tick)
    write = write_gif if path.suffix == ".gif" else write_webp
    write(path, frames, durations, loops)
