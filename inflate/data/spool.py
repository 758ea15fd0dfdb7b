"""Frames that are too many for memory, in a temporary file: written once and in order, read as often as one likes."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator

import numpy as np

_CHUNK = 16  # frames, or fewer where they have more bytes than this:
CHUNK_BYTES = 32 * 2**20


def frames_of_chunk(height: int, width: int) -> int:
    """How many frames are read at once, so that they are few megabytes."""
    return max(1, min(_CHUNK, CHUNK_BYTES // (height * width * 3)))


class FrameSpool:
    """Frames of one size, uint8 (H, W, C), of which no more than a chunk is in memory.

    The file has no name where the system can do without, so that it goes with this object and with the process, however
    that ends. ``shape``: that of a frame, None before the first.
    """

    def __init__(self, chunks: Iterable[np.ndarray] = ()) -> None:
        """Holds the frames of ``chunks`` (n, H, W, C)."""
        self._file = tempfile.TemporaryFile(prefix="inflate-")
        weakref.finalize(self, self._file.close)
        self._count = 0
        self.shape: tuple[int, int, int] | None = None
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: np.ndarray) -> None:
        """Write frames (n, H, W, C) behind the others."""
        assert self.shape in (None, chunk.shape[1:]) and chunk.dtype == np.uint8, "frames of one kind"
        height, width, channels = chunk.shape[1:]
        self.shape = (height, width, channels)
        self._file.seek(self._count * self._size())
        self._file.write(np.ascontiguousarray(chunk).data)
        self._count += len(chunk)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        """Frame ``number`` (H, W, C)."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._read(number, 1)[0]

    def chunks(self, first: int = 0) -> Iterator[np.ndarray]:
        """Chunks (n, H, W, C) from frame ``first`` on."""
        while self.shape is not None and first < self._count:
            chunk = self._read(first, min(frames_of_chunk(*self.shape[:2]), self._count - first))
            yield chunk
            first += len(chunk)

    def _read(self, first: int, count: int) -> np.ndarray:
        assert self.shape is not None
        frames = np.empty((count, *self.shape), np.uint8)
        self._file.seek(first * self._size())  # others may read meanwhile
        self._file.readinto(frames.data)
        return frames

    def _size(self) -> int:
        assert self.shape is not None
        return self.shape[0] * self.shape[1] * self.shape[2]
