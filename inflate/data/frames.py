"""All frames of a data set as one memory-mapped uint8 array at one size, so that training never decodes.

A cache is a folder with ``frames.bin`` (total_frames x S x S x 3 bytes) and ``index.json``. It is rebuilt when the
files it was made from change (names, sizes, times of change).
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from inflate.data.decode import DecodedVideo, decode_video
from inflate.data.kept import ELSEWHERE, HIDDEN, cache_folder
from inflate.data.listing.found import Listing, VideoItem
from inflate.data.listing.report import DataReport
from inflate.data.listing.sources import open_videos
from inflate.data.reading import PIXELS
from inflate.data.reading.pictures import VideoError
from inflate.errors import InputError
from inflate.staging import put_in_place, staged
from inflate.workers import worker_pool

_FORMAT = "inflate-frames-2"


@dataclass(frozen=True, eq=False)
class FrameEntry:
    """One clip or still: rows ``start`` to ``start + num_frames`` of the frame array; times in seconds."""

    name: str
    caption: str
    keywords: tuple[str, ...]
    split: str
    kind: str
    start: int
    num_frames: int
    timestamps: np.ndarray
    duration: float
    loop: bool


@dataclass(frozen=True, eq=False)
class FrameCache:
    """A built cache: ``entries`` describe it, ``frames`` is the read-only memory map (total_frames, S, S, 3) uint8."""

    folder: Path
    source: str
    size: int
    entries: tuple[FrameEntry, ...]
    report: DataReport

    @classmethod
    def open(cls, folder: str | Path) -> "FrameCache":
        """Open a folder that ``build_frame_cache`` made; raises ``InputError`` if it is none or was cut short."""
        folder = Path(folder)
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if index["format"] != _FORMAT:
                raise ValueError(index["format"])
            entries = tuple(_entry(row) for row in index["entries"])
            report = DataReport.from_json(index["report"])
            cache = cls(folder, index["source"], int(index["size"]), entries, report)
            found, total = (folder / "frames.bin").stat().st_size, cache.num_frames * cache.size**2 * 3
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} is not a frame cache of {_FORMAT}; delete it and build it again") from error
        if found != total:
            raise InputError(f"{folder}/frames.bin has {found} bytes, not {total}; delete the cache and build it again")
        return cache

    @property
    def num_frames(self) -> int:
        """Frames of all entries together."""
        return sum(entry.num_frames for entry in self.entries)

    @cached_property
    def frames(self) -> np.ndarray:
        """The memory map (total_frames, S, S, 3) uint8, read-only."""
        shape = (self.num_frames, self.size, self.size, 3)
        return np.memmap(self.folder / "frames.bin", dtype=np.uint8, mode="r", shape=shape)

    def select(self, kind: str | None = None, split: str | None = None) -> list[int]:
        """Numbers of the entries of one ``kind`` ("clip" or "still") and one ``split``; None takes all."""
        return [
            number
            for number, entry in enumerate(self.entries)
            if kind in (None, entry.kind) and split in (None, entry.split)
        ]

    def clip_frames(self, number: int) -> np.ndarray:
        """All frames of one entry, uint8 (F, S, S, 3), a view into the memory map."""
        entry = self.entries[number]
        return self.frames[entry.start : entry.start + entry.num_frames]

    def __len__(self) -> int:
        return len(self.entries)


def build_frame_cache(
    folder: str | Path,
    size: int,
    cache_dir: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> FrameCache:
    """Decode what ``open_videos`` lists in ``folder`` to ``size`` x ``size`` once; later calls open the result.

    The cache goes to ``cache_dir``, by default ``frames-<size>`` below :func:`inflate.data.kept.cache_folder`.
    Unreadable and zero-frame files are skipped; ``.report``, and ``report.json`` beside the frames, account for every
    file. Files of one frame become stills. ``progress(done, total)`` is called per file. With more than one worker,
    processes are spawned, so the calling script needs its ``__main__`` guard. Where another process builds the same
    cache, ``tell`` gets a sentence, and what that one has built is opened.
    Raises ``InputError`` if no file can be used, or the cache cannot be written.
    """
    if size < 1:
        raise InputError(f"the frame size is {size}; it must be at least 1 pixel")
    source = open_videos(folder, besides=Path(cache_dir) if cache_dir else None)
    target = Path(cache_dir) if cache_dir else cache_folder(source.root) / f"frames-{size}"
    fingerprint = _fingerprint(source, size)
    if _stored_fingerprint(target) == fingerprint:
        return FrameCache.open(target)
    if target.exists() and any(target.iterdir()) and not (target / "index.json").is_file():
        raise InputError(f"{target} exists and is not a frame cache; give another cache folder")
    try:
        with staged(target, tell=tell) as partial:
            if _stored_fingerprint(target) != fingerprint:  # it may have been built while this process waited
                if target.parent.name == HIDDEN:
                    (target.parent / ".gitignore").write_text("*\n", encoding="utf-8")
                _write_cache(source, size, partial, fingerprint, workers, progress)
                put_in_place(partial, target)
    except BrokenProcessPool as error:
        raise InputError(
            f"a process that decoded the videos in {source.root} was ended from outside, most likely for want of "
            "memory; close other programs and start again"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write the frame cache {target} ({error.strerror}); free some space, or {ELSEWHERE}"
        ) from error
    return FrameCache.open(target)


def _write_cache(
    source: Listing,
    size: int,
    folder: Path,
    fingerprint: str,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    rows: list[dict[str, object]] = []
    skipped, partly = list(source.skipped), []
    start = 0
    with (folder / "frames.bin").open("wb") as file:
        for done, (item, video) in enumerate(_decode_all(tuple(source.items), size, workers), start=1):
            if isinstance(video, str):
                skipped.append((item.footage.label, video))
            else:
                file.write(video.frames.tobytes())
                rows.append(_row(item, video, start))
                start += len(video.frames)
                if item.footage.kind == "numbered":
                    partly.append((item.footage.label, f"pictures have no times; taken as {source.rate:g} frames/s"))
            if progress:
                progress(done, len(source.items))
    kinds = Counter(f"{row['kind']}s for {'training' if row['split'] == 'train' else 'testing'}" for row in rows)
    report = DataReport(
        len(rows),
        tuple(skipped),
        tuple(source.ignored),
        tuple(partly),
        tuple(source.notes),
        dict(sorted(kinds.items())),
    )
    if not rows:
        raise InputError(f"no file in {source.path} could be used ({report.sentence()}); add videos that can be read")
    index = {
        "format": _FORMAT,
        "source": str(source.path),
        "layout": source.layout,
        "size": size,
        "fingerprint": fingerprint,
        "report": report.to_json(),
        "entries": rows,
    }
    (folder / "report.json").write_text(report.dumps(), encoding="utf-8")
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def _decode_all(
    items: tuple[VideoItem, ...], size: int, workers: int
) -> Iterator[tuple[VideoItem, DecodedVideo | str]]:
    """Each item with its frames, or with the reason why it has none; always in the order of ``items``."""
    if workers <= 1:
        for item in items:
            yield item, _decode_item(item, size)
        return
    with worker_pool(workers) as pool:
        # Windows of a few items keep decoded videos from piling up in memory while the disk is slow.
        window = 4 * workers
        for first in range(0, len(items), window):
            part = items[first : first + window]
            yield from zip(part, pool.map(_decode_item, part, [size] * len(part)), strict=True)


def _decode_item(item: VideoItem, size: int) -> DecodedVideo | str:
    try:
        return decode_video(item.footage, size, item.fit)
    except VideoError as error:
        return error.reason
    except OSError as error:
        return error.strerror or type(error).__name__


def _row(item: VideoItem, video: DecodedVideo, start: int) -> dict[str, object]:
    return {
        "name": item.name,
        "caption": item.caption,
        "keywords": list(item.keywords),
        "split": item.split,
        "kind": item.kind if len(video.frames) > 1 else "still",
        "start": start,
        "num_frames": len(video.frames),
        "timestamps": [round(float(t), 6) for t in video.timestamps],
        "duration": round(video.duration, 6),
        "loop": video.loop if item.loop is None else item.loop,
    }


def _entry(row: dict) -> FrameEntry:
    timestamps = np.asarray(row["timestamps"], dtype=np.float64)
    return FrameEntry(**{**row, "keywords": tuple(row["keywords"]), "timestamps": timestamps})


def _fingerprint(source: Listing, size: int) -> str:
    """Names, sizes and times of change of everything listed, plus what the entries say about it."""
    digest = hashlib.sha256(f"{_FORMAT} {PIXELS} {size}".encode())
    for item in source.items:
        # Footage in the folder is known by its place in it, so that a folder that was moved as a whole is not new.
        place = (os.path.relpath(item.footage.path, source.root), item.footage.stamp())
        said = (item.name, item.split, item.kind, item.caption, item.keywords, item.loop, item.fit)
        digest.update(repr((place, said)).encode())
    # The report is kept with the frames, so what it accounts for counts too.
    digest.update(repr((source.skipped, source.ignored, source.notes)).encode())
    return digest.hexdigest()


def _stored_fingerprint(folder: Path) -> str | None:
    try:
        return json.loads((folder / "index.json").read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
