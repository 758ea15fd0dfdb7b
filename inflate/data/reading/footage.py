"""Where the encoded bytes of a video lie: a file, a member of a tar, numbered pictures, or a row of a data set."""

import hashlib
import io
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Footage:
    """One video or picture as it is stored; ``label`` names it in sentences and ends in its suffix.

    ``path`` is the file itself, or nothing where ``data`` are its bytes; with ``size`` >= 0 the ``size`` bytes from
    ``offset`` on in it; with ``pictures`` a folder of which these are the frames, ``rate`` a second; with ``row`` >= 0
    a folder that ``datasets`` wrote, with the video in ``column`` of that row of ``split`` ("" where it has none).
    """

    label: str
    path: Path
    suffix: str
    offset: int = 0
    size: int = -1
    pictures: tuple[str, ...] = ()
    rate: float = 0.0
    row: int = -1
    column: str = ""
    split: str = ""
    data: bytes | None = None

    @property
    def kind(self) -> Literal["file", "numbered", "row", "bytes"]:
        """How it is opened."""
        if self.data is not None:
            return "bytes"
        return "numbered" if self.pictures else "row" if self.row >= 0 else "file"

    def open(self) -> BinaryIO:
        """The encoded bytes as a seekable file; of numbered pictures there is none."""
        if self.data is not None:
            return io.BytesIO(self.data)
        if self.kind == "row":
            return io.BytesIO(_row_bytes(self))
        file = self.path.open("rb")
        return file if self.size < 0 else _Slice(file, self.offset, self.size)  # type: ignore[return-value]  # a raw file all the same

    def length(self) -> int:
        """Bytes of the encoded video."""
        if self.data is not None:
            return len(self.data)
        if self.kind == "row":
            return len(_row_bytes(self))
        return self.size if self.size >= 0 else self.path.stat().st_size

    def stamp(self) -> list[int]:
        """What a scan is checked against: sizes and times of change of the files it was made from."""
        if self.kind == "numbered":
            stats = [(self.path / name).stat() for name in self.pictures]
            return [len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]
        if self.kind == "row":
            state = _split_folder(self) / "state.json"
            return [self.row, state.stat().st_size, state.stat().st_mtime_ns]
        stat = self.path.stat()
        return [stat.st_size, stat.st_mtime_ns, self.offset, self.size]

    def content(self) -> str:
        """SHA-256 of everything the frames are decoded from, in hex."""
        digest = hashlib.sha256()
        if self.kind == "numbered":
            for name in self.pictures:
                digest.update(hashlib.sha256((self.path / name).read_bytes()).digest())
            return digest.hexdigest()
        with self.open() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()


class _Slice(io.RawIOBase):
    """A part of a file that behaves as a file of its own, so that a tar's member is never read whole."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._offset + self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _split_folder(footage: Footage) -> Path:
    return footage.path / footage.split if footage.split else footage.path


@lru_cache(maxsize=4)
def open_table(folder: Path, column: str) -> Any:
    """A folder that ``datasets`` saved, with ``column`` as stored bytes and paths, decoded by nobody."""
    from datasets import Video, load_from_disk

    table: Any = load_from_disk(str(folder))
    return table.cast_column(column, Video(decode=False)) if isinstance(table.features[column], Video) else table


def _row_bytes(footage: Footage) -> bytes:
    value = open_table(_split_folder(footage), footage.column)[footage.row][footage.column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    return Path(str(value)).read_bytes()
