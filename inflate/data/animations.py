"""Writing gif and webp with as many frames as there are: Pillow and libwebp merge neighbours that are equal into one.

A frame that repeats the one before it is stored as pixels that change nothing.
"""

import io
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import getdata, getheader

from inflate.cancelling import check_cancelled, until_cancelled
from inflate.data.spool import FrameSpool
from inflate.errors import InputError

_COLOURS = 256
_PALETTE_FRAMES = 16  # of which a gif's colours are made
_KEEP, _CLEAR = 1, 2  # what becomes of a gif's frame before the next one is drawn
_LONGEST_MS = 655_350  # of a gif's frame
_MOST_PLAYS = 65_535
_OPAQUE = 128  # alpha from which a gif's pixel is drawn
_ANIMATED, _HAS_ALPHA, _REPLACING, _CLEARS = 0x02, 0x10, 0x02, 0x01  # flags of VP8X, and of ANMF
_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")


Frames = np.ndarray | FrameSpool
"""uint8 (F, H, W, 3), or with alpha (F, H, W, 4), in memory or in a file; one frame is looked at at a time."""


def write_gif(path: Path, frames: Frames, durations_ms: Sequence[int], loops: int = 0) -> None:
    """Write frames; of alpha a gif has one bit.

    ``durations_ms`` are multiples of 10; the whole is shown ``loops`` times, 0 for ever.

    Raises:
        InputError: a frame that is shown for longer than a gif can say.
    """
    if max(durations_ms) > _LONGEST_MS:
        raise InputError(f"A gif shows a frame for {_LONGEST_MS / 1000:g} s at most; write a webp or an mp4 instead.")
    clear = frames[0].shape[-1] == 4
    palette = _shared_palette(frames, _COLOURS - clear)
    info: dict[str, int] = {"transparency": _COLOURS - 1} if clear else {}
    if loops != 1:  # a gif says how often it is shown again
        info["loop"] = min(loops, _MOST_PLAYS) - 1 if loops else 0
    before: np.ndarray | None = None
    with path.open("wb") as file:
        for number, duration in until_cancelled(enumerate(durations_ms)):
            indices = _indexed(frames[number], palette)
            if before is None:
                file.writelines(getheader(_with_palette(indices, palette), info=dict(info))[0])
            whole = clear or before is None
            top, left, bottom, right = (0, 0, *indices.shape) if whole else _changed(indices != before)
            part = _with_palette(indices[top:bottom, left:right], palette)
            file.writelines(getdata(part, (left, top), duration=duration, disposal=_CLEAR if clear else _KEEP, **info))
            before = indices
        file.write(b";")


def _shared_palette(frames: Frames, colours: int) -> Image.Image:
    # One palette for all frames, or still parts of the picture would flicker.
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), _PALETTE_FRAMES)).round().astype(int)
    strip = Image.fromarray(np.concatenate([frames[int(number)][..., :3] for number in chosen]))
    found = strip.quantize(colours, method=Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    # What is left of 256 repeats the first colour, so that no pixel needs it.
    palette.putpalette([*found, *found[:3] * (_COLOURS - len(found) // 3)])
    return palette


def _indexed(frame: np.ndarray, palette: Image.Image) -> np.ndarray:
    """Numbers of colours (H, W); the last one where a frame with alpha is transparent."""
    indices = np.array(Image.fromarray(frame[..., :3]).quantize(palette=palette, dither=Image.Dither.NONE))
    if frame.shape[-1] == 4:
        indices[indices == _COLOURS - 1] = 0  # its twin
        indices[frame[..., 3] < _OPAQUE] = _COLOURS - 1
    return indices


def _with_palette(indices: np.ndarray, palette: Image.Image) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(indices), "P")
    picture.putpalette(palette.getpalette() or [])
    return picture


def _changed(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the box where ``mask`` (H, W) is True; of the first pixel where it nowhere is."""
    rows, columns = (np.flatnonzero(mask.any(axis=side)) for side in (1, 0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def write_webp(path: Path, frames: Frames, durations_ms: Sequence[int], loops: int = 0) -> None:
    """Write frames, lossy; shown ``loops`` times, 0 for ever."""
    options = {"duration": list(durations_ms), "quality": 90, "method": 4}
    content = _saved(_Frames(frames), save_all=True, **options)
    path.write_bytes(_unmerged(content, durations_ms, min(loops, _MOST_PLAYS), *frames[0].shape))


class _Frames(Image.Image):
    """Frames as an animation of Pillow's, which asks for one after the other to encode it; stops where nobody wants the
    file any more."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self._frames, self._number, self.n_frames = frames, 0, len(frames)
        self._show()

    def seek(self, frame: int) -> None:
        """Show a frame."""
        check_cancelled()
        if frame != self._number:
            self._number = frame
            self._show()

    def tell(self) -> int:
        """The number of the frame."""
        return self._number

    def _show(self) -> None:
        picture = Image.fromarray(self._frames[self._number])
        self.im, self._mode, self._size = picture.im, picture.mode, picture.size


def _unmerged(content: bytes, durations_ms: Sequence[int], loops: int, height: int, width: int, channels: int) -> bytes:
    """What libwebp has written, an animation or the still that it makes of equal frames, with all frames that it is to
    have. See the WebP container specification, "Animation"."""
    parts = [payload for name, payload in _chunks(content) if name == b"ANMF"]
    if not parts:
        parts = [bytes(6) + _sides(width, height) + bytes(3) + bytes([_REPLACING]) + _pixels(content)]
    made, waiting = [], list(durations_ms)
    for number, part in enumerate(parts):
        count = len(waiting) if number + 1 == len(parts) else _merged(part, waiting)
        lengths, waiting = waiting[:count], waiting[count:]
        nothing = b"" if count == 1 else _pixels(_saved(Image.new("RGBA", _sides_of(part)), lossless=True))
        for place, length in enumerate(lengths):
            # What is to be cleared after it is so after the last of them.
            flags = (part[15] if not place else 0) & ~_CLEARS | (part[15] & _CLEARS if place + 1 == count else 0)
            made.append(part[:12] + length.to_bytes(3, "little") + bytes([flags]) + (nothing if place else part[16:]))
    # libwebp leaves the flag out where frames are opaque but do not cover the canvas.
    alpha = channels == 4 or len(made) > len(parts)
    head = bytes([_ANIMATED | alpha * _HAS_ALPHA, 0, 0, 0]) + _sides(width, height)
    body = b"".join(
        [
            _chunk(b"VP8X", head),
            _chunk(b"ANIM", bytes(4) + loops.to_bytes(2, "little")),
            *(_chunk(b"ANMF", part) for part in made),
        ]
    )
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def _merged(part: bytes, durations_ms: Sequence[int]) -> int:
    """How many of the frames to come the payload of an ANMF chunk is, by how long it is shown."""
    length = int.from_bytes(part[12:15], "little")
    return next(count for count, end in enumerate(accumulate(durations_ms), 1) if end >= length)


def _pixels(still: bytes) -> bytes:
    """The chunks of a still webp that hold its picture."""
    return b"".join(_chunk(name, payload) for name, payload in _chunks(still) if name in _PIXELS)


def _sides(width: int, height: int) -> bytes:
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _sides_of(part: bytes) -> tuple[int, int]:
    return int.from_bytes(part[6:9], "little") + 1, int.from_bytes(part[9:12], "little") + 1


def _saved(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", **options)
    return file.getvalue()


def _chunk(name: bytes, payload: bytes) -> bytes:
    return name + len(payload).to_bytes(4, "little") + payload + bytes(len(payload) % 2)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and payload of each chunk of a RIFF file."""
    at = 12
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        yield content[at : at + 4], content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
