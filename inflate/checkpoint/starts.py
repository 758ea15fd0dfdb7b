"""The weights that new temporal layers start with, written without torch: what was recorded of the layers themselves.

torch draws them one after the other from one stream of a Mersenne Twister (MT19937); a number of ``uniform_`` in
float32 takes 32 bits of it. NumPy has the same twister. Everything else that layers start with (zeros, ones, Dirac
kernels, tables of positions) is kept as it is. That the two give the same bytes is checked when they are recorded
(``inflate.checkpoint.recording``), and by the tests.
"""

import base64
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

SEED = 0
"""Of new layers in a process that has no torch yet, so that one command makes one file."""
_BITS = 24  # of a number of float32 that count
_WORDS_AT_ONCE = 1 << 16
_BLOCK_WORDS = 1 << 10
_WORD = 4  # bytes


@dataclass(frozen=True)
class Uniform:
    """``uniform_(low, high)`` of float32: ``count`` numbers of the stream, from number ``first`` on."""

    first: int
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Constant:
    """A tensor's bytes where they are not zero: ``places`` of words of four bytes, rising, and those ``words``."""

    places: bytes  # of differences, int64, packed
    words: bytes  # packed


Start = Uniform | Constant


class Stream:
    """torch's stream of random words from its start on, forwards only."""

    def __init__(self) -> None:
        import numpy as np

        twister = np.random.MT19937()
        twister._legacy_seeding(SEED)  # pyright: ignore[reportAttributeAccessIssue]  # as in torch: init_genrand of 2002
        self._words = np.random.Generator(twister)
        self.place = 0

    def _take(self, count: int) -> Any:
        self.place += count
        return self._words.integers(0, 1 << 32, count, dtype="uint32")

    def skip_to(self, place: int) -> None:
        """Go on to word ``place``."""
        assert place >= self.place, "forwards only"
        while self.place < place:
            self._take(min(_WORDS_AT_ONCE, place - self.place))

    def write(self, file: BinaryIO, start: Uniform) -> None:
        """Write what ``uniform_`` draws, to where ``file`` is."""
        import numpy as np

        self.skip_to(start.first)
        low, width = np.float32(start.low), np.float32(start.high) - np.float32(start.low)
        # As torch does it: in double precision, and then rounded.
        scale = np.float64(width) / (1 << _BITS)
        numbers = np.empty(_WORDS_AT_ONCE, np.float64)
        single = np.empty(_WORDS_AT_ONCE, np.float32)
        left = start.count
        while left:
            count = min(left, _WORDS_AT_ONCE)
            words = self._take(count)
            words &= (1 << _BITS) - 1
            np.multiply(words, scale, out=numbers[:count])
            np.add(numbers[:count], np.float64(low), out=single[:count], casting="same_kind")
            file.write(single[:count].data)
            left -= count


def write_starts(file: BinaryIO, entries: Mapping[str, Mapping[str, Any]], starts: Mapping[str, Start]) -> None:
    """Write tensors behind the header of ``file``, at whose end it is; those without a start are zeros, or holes.

    Args:
        file: open for writing.
        entries: of the header, with the tensors' places.
        starts: by name.
    """
    begin = file.tell()
    file.truncate(begin + max((entry["data_offsets"][1] for entry in entries.values()), default=0))
    drawn = {name: start for name, start in starts.items() if isinstance(start, Uniform)}
    stream = Stream() if drawn else None
    for name, start in sorted(drawn.items(), key=lambda one: one[1].first):
        assert stream is not None
        file.seek(begin + entries[name]["data_offsets"][0])
        stream.write(file, start)
    for name, start in starts.items():
        if isinstance(start, Constant):
            _write_constant(file, begin + entries[name]["data_offsets"][0], start)
    file.seek(0, os.SEEK_END)


def _write_constant(file: BinaryIO, begin: int, start: Constant) -> None:
    """Blocks with anything in them; those of zeros are gone over."""
    import numpy as np

    places = np.cumsum(np.frombuffer(zlib.decompress(start.places), np.int64))
    words = np.frombuffer(zlib.decompress(start.words), np.uint32)
    numbers = places // _BLOCK_WORDS
    firsts = np.flatnonzero(np.diff(numbers, prepend=-2) > 1)  # of blocks that follow each other
    for first, last in zip(firsts, [*firsts[1:], len(places)], strict=True):
        origin = int(numbers[first]) * _BLOCK_WORDS
        run = np.zeros(int(places[last - 1]) + 1 - origin, np.uint32)
        run[places[first:last] - origin] = words[first:last]
        file.seek(begin + origin * _WORD)
        file.write(run.data)


def to_json(starts: Mapping[str, Start]) -> dict[str, Any]:
    """As plain values; what several tensors have in common is there once."""
    shared: dict[Constant, int] = {}
    rows: dict[str, Any] = {}
    for name, start in starts.items():
        if isinstance(start, Uniform):
            rows[name] = [start.first, start.count, start.low, start.high]
        else:
            rows[name] = shared.setdefault(start, len(shared))
    packed = [[base64.b64encode(part).decode() for part in (one.places, one.words)] for one in shared]
    return {"constants": packed, "starts": rows}


def from_json(values: Mapping[str, Any]) -> dict[str, Start]:
    """What :func:`to_json` gave; raises ``ValueError``, ``TypeError`` or ``KeyError`` for anything else."""
    shared = [Constant(*(base64.b64decode(part, validate=True) for part in one)) for one in values["constants"]]
    found: dict[str, Start] = {}
    for name, row in values["starts"].items():
        found[name] = shared[row] if isinstance(row, int) else Uniform(int(row[0]), int(row[1]), *map(float, row[2:]))
    return found
