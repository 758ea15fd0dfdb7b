"""Scans kept on disk: one line a video, checked against the file's size and time of change when it is read."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from inflate.data.clips.options import ClipOptions
from inflate.data.clips.pictures import scan_picture
from inflate.data.clips.scan import Scan, scan_video
from inflate.data.kept import ELSEWHERE, HIDDEN
from inflate.data.reading.footage import Footage
from inflate.data.reading.pictures import VideoError
from inflate.errors import InputError
from inflate.staging import write_whole
from inflate.workers import worker_pool

_FORMAT = "inflate-scans-1"
# What a scan depends on; everything else is applied to its result.
_SCANNED = ("num_frames", "fps", "clips_per_video", "cut_threshold", "crop_letterbox")
# Starting processes takes longer than scanning a few videos.
_FEW = 2
Found = Scan | str
Progress = Callable[[int, int], None]


class ScanCache:
    """The scans of one set of options in ``folder``; a scan that was interrupted goes on where it was."""

    def __init__(self, folder: Path, options: ClipOptions) -> None:
        said = json.dumps([_FORMAT, *(getattr(options, name) for name in _SCANNED)])
        self.path = folder / f"scans-{hashlib.sha256(said.encode()).hexdigest()[:16]}.jsonl"
        self.options = options
        self.rows: dict[str, dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                self.rows[row["place"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed

    def known(self, footage: Footage, kind: str) -> Found | None:
        """The scan of a video that has not changed since, or the reason why it had none."""
        row = self.rows.get(_place(footage, kind, self.path.parent))
        try:
            if row is None or row["stamp"] != footage.stamp():
                return None
            return row["reason"] if "reason" in row else Scan.from_json(row["scan"])
        except (OSError, KeyError, TypeError):
            return None

    def scan(self, wanted: Sequence[tuple[Footage, str]], progress: Progress | None = None) -> Iterator[Found]:
        """The scan of each (footage, "clip" or "picture"), or the reason why there is none, in order."""
        found: list[Found | None] = [self.known(footage, kind) for footage, kind in wanted]
        left = [number for number, scan in enumerate(found) if scan is None]
        if left:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _hide_from_git(self.path.parent)
                self._scan_new(wanted, found, left, progress)
            except BrokenProcessPool as error:
                raise InputError(
                    "a process that scanned videos was ended from outside, most likely for want of memory; lower "
                    "data.workers and start again: what was found so far is kept"
                ) from error
            except OSError as error:
                raise InputError(
                    f"cannot write what was found in the videos to {self.path} ({error.strerror}); free some space, or "
                    f"{ELSEWHERE}"
                ) from error
        for scan in found:
            assert scan is not None, "every video was scanned"
            yield scan

    def _scan_new(
        self, wanted: Sequence[tuple[Footage, str]], found: list[Found | None], left: list[int], progress: Any
    ) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for done, (number, scan) in enumerate(_scan_all(wanted, left, self.options), start=1):
                found[number] = scan
                footage, kind = wanted[number]
                row: dict[str, Any] = {"place": _place(footage, kind, self.path.parent), "stamp": _stamp(footage)}
                row.update({"reason": scan} if isinstance(scan, str) else {"scan": scan.to_json()})
                self.rows[row["place"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                if progress:
                    progress(done, len(left))
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows.values()).encode())


def _place(footage: Footage, kind: str, beside: Path) -> str:
    """Where the video lies, seen from the cache, so that a data set may be moved with it."""
    at = os.path.relpath(footage.path, beside)
    first = footage.pictures[0] if footage.pictures else ""
    return json.dumps([kind, at, footage.offset, first, footage.rate, footage.split, footage.column, footage.row])


def _stamp(footage: Footage) -> list[int]:
    try:
        return footage.stamp()
    except OSError:
        return []


def _scan_all(
    wanted: Sequence[tuple[Footage, str]], left: list[int], options: ClipOptions
) -> Iterator[tuple[int, Found]]:
    """(number, scan) of each one left, as they are finished."""
    if options.workers <= 1 or len(left) < _FEW * options.workers:
        for number in left:
            yield number, scan_one(*wanted[number], options)
        return
    workers = min(options.workers, len(left))
    with worker_pool(workers) as pool:
        waiting: dict[Future[Found], int] = {}
        queue = iter(left)
        while True:
            for number in queue:
                waiting[pool.submit(scan_one, *wanted[number], options)] = number
                if len(waiting) >= 4 * workers:
                    break
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()


def scan_one(footage: Footage, kind: str, options: ClipOptions) -> Found:
    """A scan, or the reason why there is none."""
    try:
        return scan_picture(footage) if kind == "picture" else scan_video(footage, options)
    except VideoError as error:
        return error.reason
    except OSError as error:
        return error.strerror or type(error).__name__


def _hide_from_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if folder.name == HIDDEN and not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
