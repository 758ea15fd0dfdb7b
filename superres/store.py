"""Frames of one window that are too large for memory, in a temporary file while tiles are added to them."""

import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_LEVELS = 32767  # of 16-bit numbers, for values from -1 to 1
BYTES_PER_PIXEL = 3 * 2  # three channels of 16 bits


class FrameStore:
    """``count`` frames (3, height, width) in [-1, 1], each value kept within 1/65534 of what it was; black at first."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self.count, self.height, self.width = count, height, width
        # Unbuffered: rows of tiles lie apart, and a buffer would be filled and thrown away for each.
        self._file = tempfile.TemporaryFile(prefix="inflate-", buffering=0)
        weakref.finalize(self, self._file.close)
        self._file.truncate(count * height * width * BYTES_PER_PIXEL)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Tensor:
        """Frame ``number``, float32."""
        return self._read(number, slice(0, self.height), slice(0, self.width))

    def __setitem__(self, number: int, frame: Tensor) -> None:
        self._write(number, slice(0, self.height), slice(0, self.width), frame)

    def blend(self, rows: slice, columns: slice, made: Tensor, share: Tensor) -> None:
        """Add a tile ``made`` (n, 3, h, w) of all frames, of which ``share`` (h, w) is taken."""
        for number, frame in enumerate(made):
            self._write(number, rows, columns, torch.lerp(self._read(number, rows, columns), frame, share))

    def _read(self, number: int, rows: slice, columns: slice) -> Tensor:
        levels = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.int16)
        for run in self._runs(number, rows, columns, levels):
            self._file.readinto(run)
        return torch.from_numpy(levels.transpose(2, 0, 1) / np.float32(_LEVELS))

    def _write(self, number: int, rows: slice, columns: slice, frame: Tensor) -> None:
        levels = (frame * _LEVELS).round().to(torch.int16).permute(1, 2, 0).contiguous().numpy()
        for run in self._runs(number, rows, columns, levels):
            self._file.write(run)

    def _runs(self, number: int, rows: slice, columns: slice, levels: np.ndarray) -> Iterator[memoryview]:
        """Parts of ``levels`` (h, w, 3) that lie in one piece in the file, which stands at each when it is given."""
        whole_rows = levels.shape[1] == self.width
        for row, run in enumerate(levels.reshape(1 if whole_rows else len(levels), -1)):
            first = (number * self.height + rows.start + row) * self.width + columns.start
            self._file.seek(first * BYTES_PER_PIXEL)
            yield run.data
