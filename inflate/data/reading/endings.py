"""Whether a file is all there, by what its first bytes say about its length.

FFmpeg takes a file that stops half-way for one that ends there, and durations in headers are no proof: edit lists and
longer sound make them differ from the picture's. Sizes of outer chunks are.
"""

from typing import BinaryIO

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def missing_bytes(file: BinaryIO, length: int) -> int:
    """How many bytes a Matroska (webm) or RIFF (avi, webp) file of ``length`` bytes lacks; 0 where it does not say."""
    file.seek(0)
    start = file.read(12)
    file.seek(0)
    if start[:4] == _EBML:
        end = _matroska_end(file)
    elif start[:4] == b"RIFF":
        end = 8 + int.from_bytes(start[4:8], "little")
    else:
        end = 0
    file.seek(0)
    return max(0, end - length)


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends, or 0 where its size is unknown (a live recording)."""
    file.seek(4)
    header = _size(file)
    if header is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _size(file)
    return 0 if size is None else file.tell() + size


def _size(file: BinaryIO) -> int | None:
    """A size of EBML: as many bytes more as the first one has leading zeros; all ones stand for an unknown size."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - more)) - 1)]) + file.read(more), "big")
    return None if value == (1 << (7 * (more + 1))) - 1 else value
