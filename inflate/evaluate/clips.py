"""Clips of people's videos as measures take them: so many frames, so far apart, at one size; one clip in memory.

A clip is uint8 ``(F, H, W, 3)``. Which clips are taken follows from the protocol and the names of the videos alone.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import numpy as np

from inflate.data import VideoError, VideoItem, open_videos
from inflate.data.decode import frame_times
from inflate.data.reading.frames import shown_frames
from inflate.errors import InputError, nearest
from inflate.evaluate.resizing import FILTERS, Filter, square

Start = Literal["first", "middle", "random"]
SPLITS = ("all", "train", "test")
LOSSY = frozenset(
    ".mp4 .mov .m4v .qt .f4v .webm .mkv .avi .mts .m2ts .ts .mpg .mpeg .vob .3gp .3g2 .wmv .asf .flv .ogv .dv".split()
)
"""Containers whose codecs mostly change pixels."""


@dataclass(frozen=True)
class ClipProtocol:
    """How clips are cut from videos.

    ``num_frames`` frames, each ``stride`` frames of the video after the one before, from its ``start``: its first
    frame, the frame that puts the clip in the middle, or places drawn by ``seed`` and the video's name.
    ``clips_per_video`` of them (without overlap in the first frame only if drawn so). ``size``: the side in pixels of
    the centre square that is taken, by ``resize``; None leaves frames as they are stored.

    Raises:
        InputError: a value that cannot be.
    """

    num_frames: int = 16
    stride: int = 1
    start: Start = "first"
    clips_per_video: int = 1
    size: int | None = None
    resize: Filter = "lanczos"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "clips_per_video"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', '-')} is {getattr(self, name)}; it must be 1 or more")
        for name, allowed in (("start", get_args(Start)), ("resize", FILTERS)):
            said = getattr(self, name)
            if said not in allowed:
                raise InputError(f"--{name} is {said!r}{nearest(said, allowed)}; use {', '.join(allowed)}")
        if self.size is not None and not 8 <= self.size <= 8192:
            raise InputError(f"--size is {self.size}; give pixels from 8 to 8192")
        if self.clips_per_video > 1 and self.start != "random":
            raise InputError(f"{self.clips_per_video} clips of each video need --start random")

    @property
    def span(self) -> int:
        """How many frames of a video a clip reaches over."""
        return (self.num_frames - 1) * self.stride + 1

    def starts(self, name: str, count: int) -> list[int]:
        """First frames of the clips of a video of ``count`` frames, in order; none where it is too short."""
        last = count - self.span
        if last < 0:
            return []
        if self.start != "random":
            return [0 if self.start == "first" else last // 2]
        word = int.from_bytes(hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest()[:8], "big")
        rng = np.random.default_rng([self.seed, word])
        return sorted(rng.permutation(last + 1)[: self.clips_per_video].tolist())

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "resize": self.resize if self.size else "none", "fit": "centre square"}


@dataclass(frozen=True)
class Clip:
    """One clip, the video it is of, and what is said of it."""

    video: str
    caption: str
    frames: np.ndarray


@dataclass
class ClipFolder:
    """The clips of a folder, table, shard or single file of videos, or of a ``.npy`` array uint8 (N, F, H, W, 3).

    ``limit`` takes that many videos, drawn by the protocol's seed. ``split`` "train" or "test" takes the videos that
    the data set's folders, tables or shards say are of it: whole videos, never clips of one on both sides. After
    iteration ``taken`` says how many clips there were, ``left_out`` which videos gave none, and why.

    Raises:
        InputError: nothing there, a split that the data does not have, or an array of another kind.
    """

    path: Path
    protocol: ClipProtocol
    limit: int | None = None
    split: str = "all"
    taken: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InputError(f"--split is {self.split!r}{nearest(self.split, SPLITS)}; use {', '.join(SPLITS)}")
        if self._array is None and not self._items:
            raise InputError(f"{self.path} has no video of its {self.split} split; use --split all, or another folder")

    def __len__(self) -> int:
        """How many videos are looked at."""
        return len(self._names)

    @cached_property
    def _array(self) -> np.ndarray | None:
        if self.path.suffix.lower() != ".npy":
            return None
        try:
            found = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.path} cannot be read as an array of clips; save uint8 (N, F, H, W, 3)") from error
        if found.dtype != np.uint8 or found.ndim != 5 or found.shape[-1] != 3 or not len(found):
            raise InputError(f"{self.path} holds {found.dtype} of shape {found.shape}; save uint8 (N, F, H, W, 3)")
        if self.split != "all":
            raise InputError(f"{self.path} is an array, which has no splits; leave out --split")
        return found

    @cached_property
    def _items(self) -> list[VideoItem]:
        listing = open_videos(self.path, stills=False)
        items = [item for item in listing.items if item.kind == "clip"]
        if self.split != "all":
            if not any(item.hint for item in items):
                raise InputError(
                    f"{self.path} names no splits (folders or tables called train, test, …); use --split all"
                )
            items = [item for item in items if item.split == self.split]
        self.left_out.extend((label, reason) for label, reason in listing.skipped)
        return self._limited(sorted(items, key=lambda item: item.name))

    def _limited(self, items: list[Any]) -> list[Any]:
        if self.limit is None or self.limit >= len(items):
            return items
        chosen = np.random.default_rng([self.protocol.seed, 3]).permutation(len(items))[: self.limit]
        return [items[number] for number in sorted(chosen)]

    @cached_property
    def _rows(self) -> list[int]:
        return [] if self._array is None else self._limited(list(range(len(self._array))))

    @property
    def _names(self) -> Sequence[object]:
        return self._items if self._array is None else self._rows

    def __iter__(self) -> Iterator[Clip]:
        self.taken = 0
        for item in self._names:
            clips = self._of_row(item) if isinstance(item, int) else self._of_video(item)  # pyright: ignore[reportArgumentType]  # a VideoItem
            for clip in clips:
                self.taken += 1
                yield clip

    def _of_row(self, number: int) -> Iterator[Clip]:
        assert self._array is not None
        name, clip = f"{self.path.stem}[{number}]", self._array[number]
        starts = self.protocol.starts(name, len(clip))
        if not starts:
            self.left_out.append((name, self._short(len(clip))))
        for start in starts:
            frames = clip[start : start + self.protocol.span : self.protocol.stride]
            yield self._clip(name, "", [np.asarray(frame) for frame in frames])

    def _of_video(self, item: VideoItem) -> Iterator[Clip]:
        try:
            count, rate = _length(item)
            starts = self.protocol.starts(item.name, count)
            if not starts:
                self.left_out.append((item.name, self._short(count)))
                return
            held = self._frames(item, {start + step for start in starts for step in self._steps()})
        except VideoError as error:
            self.left_out.append((item.name, str(error)))
            return
        self.rates.append(rate)
        for start in starts:
            yield self._clip(item.name, item.caption, [held[start + step] for step in self._steps()])

    def _steps(self) -> range:
        return range(0, self.protocol.span, self.protocol.stride)

    def _frames(self, item: VideoItem, wanted: set[int]) -> dict[int, np.ndarray]:
        """The frames of these numbers, reduced as they come."""
        found: dict[int, np.ndarray] = {}
        for number, shown in enumerate(shown_frames(item.footage, "mended")):
            if number in wanted:
                found[number] = self._reduced(shown.pixels())
                if len(found) == len(wanted):
                    return found
        raise VideoError(item.footage.label, "it has fewer frames than its packets say")

    def _reduced(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        return square(pixels, self.protocol.size, self.protocol.resize) if self.protocol.size else pixels

    def _clip(self, name: str, caption: str, frames: list[np.ndarray]) -> Clip:
        if self._array is not None:
            frames = [self._reduced(frame) for frame in frames]
        if any(frame.shape != frames[0].shape for frame in frames):
            raise InputError(f"{name} changes its size half-way; give --size")
        return Clip(name, caption, np.stack(frames))

    def _short(self, count: int) -> str:
        return f"{count} frames, and a clip takes {self.protocol.span}"

    @property
    def lossy(self) -> list[str]:
        """Suffixes of the containers among these videos whose codecs mostly change pixels."""
        return sorted(set(self.containers()) & LOSSY)

    def containers(self) -> list[str]:
        """Suffixes of the videos; pictures in folders are ``frames .png``, arrays ``.npy``."""
        if self._array is not None:
            return [".npy"]
        return sorted({_container(item) for item in self._items})

    def fingerprint(self) -> str:
        """Of the videos' names and numbers of bytes, in hex: which set it was, without reading it twice."""
        digest = hashlib.sha256()
        if self._array is not None:
            digest.update(str((self._array.shape, self._rows)).encode())
        for item in [] if self._array is not None else self._items:
            footage = item.footage
            size = footage.stamp()[1] if footage.kind == "numbered" else footage.length()
            digest.update(f"{item.name}\0{size}\n".encode("utf-8", "backslashreplace"))
        return digest.hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What a result says of the set, once it was read."""
        return {
            "name": self.path.name,
            "split": self.split,
            "split_by": "video",
            "fingerprint": self.fingerprint(),
            "videos": len(self),
            "left_out": len(self.left_out),
            "clips": self.taken,
            "containers": self.containers(),
            "frame_rate": round(median(self.rates), 3) if self.rates else None,
            "frames_as_stored": self.sizes.most_common(1)[0][0] if self.sizes else None,
        }


def _container(item: VideoItem) -> str:
    return f"frames {item.suffix}" if item.footage.kind == "numbered" else item.suffix


def _length(item: VideoItem) -> tuple[int, float]:
    """Frames and frames a second; nothing is decoded."""
    if item.footage.kind == "numbered":
        return len(item.footage.pictures), item.footage.rate
    times = frame_times(item.footage)
    return len(times.spans), times.fps
