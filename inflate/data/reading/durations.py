"""How long the frames of animations are shown, by what stands before their pixels where formats say it there."""

from typing import BinaryIO

from PIL import Image

from inflate.data.reading.gifs import GifPicture
from inflate.data.reading.pictures import frame_numbers

# A browser shows a frame of 10 ms or less for a tenth of a second.
_HURRIED_MS, _UNHURRIED_MS = 10.0, 100.0


def shown_seconds(stated_ms: float, count: int) -> float:
    """Seconds for which a frame of ``count`` is shown that is to be shown for so many milliseconds."""
    return (_UNHURRIED_MS if count > 1 and stated_ms <= _HURRIED_MS else stated_ms) / 1000


def stated_spans(image: Image.Image, file: BinaryIO) -> list[tuple[float, float]] | None:
    """When a gif or an animated webp shows its frames, (start, end) in seconds; no pixel is decoded.

    None for other formats, whose decoders say it on the way.
    """
    if isinstance(image, GifPicture):
        stated = image.durations()
    elif image.format == "WEBP":
        stated = _webp_durations(file)
    else:
        return None
    count, start, spans = len(frame_numbers(image)), 0.0, []
    for duration in stated:
        spans.append((start, start := start + shown_seconds(duration, count)))
    return spans if count == len(spans) else None


def _webp_durations(file: BinaryIO) -> list[float]:
    """See the WebP container specification, "Animation"; a still has no frames in its sense."""
    found = []
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        start = file.tell()
        if name == b"ANMF":
            found.append(float(int.from_bytes(file.read(16)[12:15], "little")))
        file.seek(start + size + size % 2)
    return found
