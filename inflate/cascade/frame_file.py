"""Where frames lie between two stages of a video that does not fit into memory."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from inflate.video import from_uint8, to_uint8

_CHUNK = 16  # frames, or fewer where they have more bytes than this:
CHUNK_BYTES = 32 * 2**20


def frames_of_chunk(height: int, width: int) -> int:
    """How many frames are read at once, so that they are few megabytes."""
    return max(1, min(_CHUNK, CHUNK_BYTES // (height * width * 3)))


class FrameFile:
    """Frames on disk, written once and read in order; neither holds more than a chunk in memory.

    The file has no name where the system can do without, so that it goes with this object and with the process, however
    that ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="inflate-")
        weakref.finalize(self, self._file.close)
        self.picture: tuple[int, int] | None = None  # height, width

    def write(self, chunks: Iterable[Tensor]) -> int:
        """Write chunks (3, n, H, W) in [-1, 1] as 8-bit pixels; returns the number of frames."""
        count = 0
        for chunk in chunks:
            self.picture = (chunk.shape[2], chunk.shape[3])
            self._file.write(to_uint8(chunk[None])[0].tobytes())
            count += chunk.shape[1]
        return count

    def read(self, first: int = 0) -> Iterator[Tensor]:
        """Chunks (3, n, H, W) from frame ``first`` on, float32 in [-1, 1]."""
        if self.picture is None:
            return
        height, width = self.picture
        size, frames_at_once = height * width * 3, frames_of_chunk(height, width)
        while content := self._read(first * size, frames_at_once * size):
            frames = np.frombuffer(content, dtype=np.uint8).reshape(1, -1, height, width, 3)
            yield from_uint8(frames)[0]
            first += frames_at_once

    def _read(self, start: int, count: int) -> bytes:
        self._file.seek(start)  # others may read meanwhile
        return self._file.read(count)
