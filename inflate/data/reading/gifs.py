"""GIF animations as browsers compose them.

Pillow (12.3) puts the background's or the first frame's own colour where no frame has drawn yet, or where one was
cleared; browsers leave both transparent. So only single tiles are decoded by Pillow, each as a file of its own.
"""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageFile

_EXTENSION, _IMAGE, _END, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9
_CLEARED, _RESTORED = 2, 3  # disposal: what becomes of a tile before the next one is drawn
_HEADER, _DESCRIPTOR = 13, 10  # bytes before the colours of all tiles, and before those of one


@dataclass(frozen=True)
class _Tile:
    box: tuple[int, int, int, int]  # left, top, right, bottom
    alone: bytes  # a gif that shows nothing else
    duration: int  # ms
    disposal: int


class GifPicture(ImageFile.ImageFile):
    """A gif, still or animated, with Pillow's interface of those; every frame is RGBA and as large as the canvas."""

    format = "GIF"
    format_description = "Compuserve GIF"

    def _open(self) -> None:
        assert self.fp is not None
        stated = Image.open(self.fp, formats=("GIF",))  # refuses what is no gif, or too large a one
        self._size, self._mode = stated.size, "RGBA"
        self._loop = {"loop": stated.info["loop"]} if "loop" in stated.info else {}
        self.fp.seek(0)
        self._tiles = _tiles(self.fp.read())
        self.n_frames = len(self._tiles)
        self.is_animated = self.n_frames > 1
        self._next, self._left = 0, Image.new("RGBA", self.size)
        self.seek(0)

    def durations(self) -> list[float]:
        """How long each frame is to be shown, in milliseconds."""
        return [float(tile.duration) for tile in self._tiles]

    def seek(self, frame: int) -> None:
        """Go to a frame; raises ``EOFError`` where there is none."""
        if not 0 <= frame < self.n_frames:
            raise EOFError("there is no such frame in the gif")
        self._frame = frame
        self.info: dict[str | tuple[int, int], Any] = {**self._loop, "duration": self._tiles[frame].duration}

    def tell(self) -> int:
        """The number of the frame."""
        return self._frame

    def load(self) -> Any:
        """Compose the frame that was sought, from the first one on or from where the last one left off."""
        if self._next != self._frame + 1:
            if self._next > self._frame:
                self._next, self._left = 0, Image.new("RGBA", self.size)
            while self._next <= self._frame:
                self.im = self._drawn(self._tiles[self._next]).im
                self._next += 1
        return super().load()

    def _drawn(self, tile: _Tile) -> Image.Image:
        shown = self._left.copy()
        if tile.box[2] > tile.box[0] and tile.box[3] > tile.box[1]:
            picture = Image.open(io.BytesIO(tile.alone), formats=("GIF",)).convert("RGBA")
            shown.paste(picture, tile.box[:2], picture)
        if tile.disposal != _RESTORED:
            self._left = shown.copy()
        if tile.disposal == _CLEARED:
            self._left.paste((0, 0, 0, 0), tile.box)
        return shown


def _tiles(data: bytes) -> list[_Tile]:
    """See the GIF89a specification; what is neither an extension nor an image is passed over."""
    at = _HEADER + _colours(data[10])
    shared, control, tiles = data[_HEADER:at], b"", []
    while at < len(data) and data[at] != _END:
        start = at
        if data[at] == _EXTENSION:
            at = _behind_blocks(data, at + 2)
            if data[start + 1 : start + 2] == bytes([_CONTROL]):
                control = data[start:at]
        elif data[at] == _IMAGE and start + _DESCRIPTOR <= len(data):
            left, top, width, height = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
            at = _behind_blocks(data, at + _DESCRIPTOR + _colours(data[at + _DESCRIPTOR - 1]) + 1)
            head = b"GIF89a" + data[start + 5 : start + 9] + data[10:_HEADER] + shared
            alone = head + control + data[start : start + 1] + bytes(4) + data[start + 5 : at] + bytes([_END])
            duration = 10 * int.from_bytes(control[4:6], "little")
            disposal = control[3] >> 2 & 7 if control else 0
            tiles.append(_Tile((left, top, left + width, top + height), alone, duration, disposal))
            control = b""
        else:
            at += 1
    return tiles


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
