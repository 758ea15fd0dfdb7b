"""Where frames lie between two stages of a video that does not fit into memory."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from inflate.data.spool import FrameSpool
from inflate.video import from_uint8, to_uint8


class FrameFile:
    """Frames on disk, written once and read in order; neither holds more than a chunk in memory."""

    def __init__(self) -> None:
        self._frames = FrameSpool()

    def write(self, chunks: Iterable[Tensor]) -> int:
        """Write chunks (3, n, H, W) in [-1, 1] as 8-bit pixels; returns the number of frames."""
        for chunk in chunks:
            self._frames.add(to_uint8(chunk[None])[0])
        return len(self._frames)

    def read(self, first: int = 0) -> Iterator[Tensor]:
        """Chunks (3, n, H, W) from frame ``first`` on, float32 in [-1, 1]."""
        for chunk in self._frames.chunks(first):
            yield from_uint8(chunk[None])[0]
