"""A set of clips to fine-tune on: what was found in the videos, cut into windows of a few sizes, read when asked."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inflate.data.clips.buckets import Size, fit, nearest_size, sizes_for
from inflate.data.clips.cache import ScanCache
from inflate.data.clips.options import ClipOptions
from inflate.data.clips.pictures import list_pictures, read_picture
from inflate.data.clips.placing import Placed, unit, wanted_times
from inflate.data.clips.scan import Scan
from inflate.data.clips.window import Kind, Split, Window
from inflate.data.kept import ELSEWHERE
from inflate.data.listing.found import Listing, VideoItem
from inflate.data.listing.report import DataReport, Left
from inflate.data.listing.sources import open_videos, train_on_all
from inflate.data.reading import PIXELS
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import SAME_TIME, Shown, shown_frames
from inflate.data.reading.pictures import VideoError
from inflate.errors import InputError
from inflate.staging import write_whole

_FORMAT = "inflate-clips-1"


@dataclass(frozen=True)
class Source:
    """Where a window's pixels come from."""

    footage: Footage
    scan: Scan


class ClipSet:
    """Windows in a fixed order, with a report of every file; ``read`` decodes one window and keeps nothing."""

    def __init__(self, windows: Sequence[Window], sources: Sequence[Source], report: DataReport) -> None:
        self.windows = tuple(windows)
        self.report = report
        self._sources = tuple(sources)

    def __len__(self) -> int:
        return len(self.windows)

    def select(self, split: Split | None = None, kind: Kind | None = None) -> list[int]:
        """Numbers of the windows of one split and kind; None takes all."""
        return [n for n, w in enumerate(self.windows) if split in (None, w.split) and kind in (None, w.kind)]

    def read(self, number: int) -> np.ndarray:
        """Window ``number``: uint8 (F, H, W, 3), the frames shown at its times, cropped and resized to its size.

        Raises:
            VideoError: the file is gone, or no longer what it was when it was scanned.
        """
        window, source = self.windows[number], self._sources[number]
        size = (window.height, window.width)
        if window.kind == "picture":
            return fit(read_picture(source.footage), source.scan.box, 1.0, size)[None]
        return np.stack(_read_clip(window, source, size))

    @cached_property
    def _fingerprint(self) -> str:
        rows = [(w.key, w.caption, w.split) for w in self.windows]
        return hashlib.sha256(json.dumps([_FORMAT, rows]).encode()).hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of all windows with their captions and splits, in hex."""
        return self._fingerprint


def _read_clip(window: Window, source: Source, size: Size) -> list[np.ndarray]:
    scan = source.scan
    times = wanted_times(window.start, window.fps, window.num_frames, scan.duration if scan.loop else 0.0)
    order = np.argsort(times, kind="stable")
    found: list[np.ndarray] = []
    held: Shown | None = None
    pixels: np.ndarray | None = None
    # Which frame is shown at a time is known once the next one comes later; only those shown are converted.
    for shown in shown_frames(source.footage, scan.timing, float(times[order[0]]), scan.origin):
        while held is not None and len(found) < len(order) and times[order[len(found)]] + SAME_TIME < shown.time:
            pixels = _fitted(held, source, size) if pixels is None else pixels
            found.append(pixels)
        held, pixels = shown, None
        if len(found) == len(order):
            break
    if held is None:
        raise VideoError(source.footage.label, "it has changed since it was scanned")
    while len(found) < len(order):
        pixels = _fitted(held, source, size) if pixels is None else pixels
        found.append(pixels)
    return [found[place] for place in np.argsort(order, kind="stable")]


def _fitted(shown: Shown, source: Source, size: Size) -> np.ndarray:
    pixels = shown.pixels()
    if pixels.shape[:2] != (source.scan.height, source.scan.width):
        raise VideoError(source.footage.label, "its frames change size half-way")
    return fit(pixels, source.scan.box, source.scan.aspect, size)


def open_clips(options: ClipOptions, multiple: int, progress: Callable[[int, int], None] | None = None) -> ClipSet:
    """List, scan and cut the videos that ``options`` names; sizes are multiples of ``multiple`` pixels.

    What a scan finds is kept on disk and used again as long as a file's size and time of change are the same.
    ``progress(done, total)`` is called per scanned file. With more than one worker processes are spawned, so that a
    calling script needs its ``__main__`` guard.

    Raises:
        InputError: nothing there, nothing that can be used, a size that ``multiple`` does not divide.
    """
    sizes = sizes_for(options, multiple)
    clips = open_videos(options.path, options.fps[-1], stills=False, besides=options.cache_folder)
    train_on_all(clips)
    listings = [clips, *([list_pictures(options.pictures)] if options.pictures else [])]
    cache = ScanCache(options.cache_folder, options)
    builder = _Builder(options, sizes)
    wanted: list[tuple[VideoItem, Kind]] = [
        (video, "clip" if listing is clips else "picture")
        for listing in listings
        for video in listing.items
        if builder.wants(video)
    ]
    found = cache.scan([(video.footage, kind) for video, kind in wanted], progress)
    for (video, kind), scan in zip(wanted, found, strict=True):
        builder.take(video, scan, kind)
    made = builder.finish(listings)
    _write_report(options, made.report)
    if not any(window.kind == "clip" and window.split == "train" for window in made.windows):
        raise InputError(
            f"{options.path} gives no clip to train on: {made.report.sentence()}; all files with their reasons are in "
            f"{options.cache_folder / 'report.json'}"
        )
    return made


def _write_report(options: ClipOptions, report: DataReport) -> None:
    folder = options.cache_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "report.json", report.dumps().encode())
    except OSError as error:
        raise InputError(f"cannot write {folder / 'report.json'} ({error.strerror}); {ELSEWHERE}") from error


class _Builder:
    """Turns scans into windows and remembers what was left out."""

    def __init__(self, options: ClipOptions, sizes: list[Size]) -> None:
        self.options, self.sizes = options, sizes
        self.taken: list[tuple[VideoItem, Scan, Kind, list[Placed]]] = []
        self.skipped: list[Left] = []
        self.ignored: list[Left] = []
        self.partly: list[Left] = []
        self._said = False  # whether folders, shards or tables name a validation split

    def wants(self, video: VideoItem) -> bool:
        """Whether a video's split is used at all; those of others are not even scanned."""
        label = video.footage.label
        if video.hint == "test":
            self.ignored.append((label, "it belongs to a test split, which is not trained on"))
        elif video.hint == "validation" and self.options.validation == 0:
            self.ignored.append((label, "it belongs to a validation split, and data.validation is 0"))
        else:
            return True
        return False

    def take(self, video: VideoItem, scan: Scan | str, kind: Kind) -> None:
        """A scanned video or picture, or the reason why it could not be."""
        if isinstance(scan, str):
            self.skipped.append((video.footage.label, scan))
        elif kind == "picture":
            self.taken.append((video, scan, kind, [Placed(0, 0.0, self.options.fps[0])]))
        else:
            self._take_clip(video, scan)

    def _take_clip(self, video: VideoItem, scan: Scan) -> None:
        label = video.footage.label
        if not scan.placed:
            self.skipped.append((label, _too_short(scan, self.options)))
            return
        moving = [window for window in scan.placed if window.motion >= self.options.min_motion]
        if not moving:
            most = max(window.motion for window in scan.placed)
            least = self.options.min_motion
            self.skipped.append((label, f"it hardly moves: {most:.4f} at most, where data.min_motion is {least}"))
            return
        self.partly.extend((label, said) for said in self._remarks(scan, moving))
        self.taken.append((video, scan, "clip", moving))

    def _remarks(self, scan: Scan, moving: list[Placed]) -> list[str]:
        said = list(scan.remarks)
        if len(moving) < len(scan.placed):
            said.append(f"{len(scan.placed) - len(moving)} of {len(scan.placed)} windows hardly move")
        empty = scan.shots - len({window.shot for window in scan.placed})
        if empty and not self.options.clips_per_video and len(scan.placed) < 8:
            said.append(f"{empty} of {scan.shots} shots are too short")
        if scan.barred:
            left, top, right, bottom = scan.box
            said.append(f"black bars cropped from {scan.width}x{scan.height} to {right - left}x{bottom - top}")
        width, height = _shown_size(scan)
        size = nearest_size(self.sizes, width, height)
        if width < size[1] * 0.99 or height < size[0] * 0.99:
            said.append(f"enlarged from {round(width)}x{round(height)} to cover {size[1]}x{size[0]}")
        return said

    def finish(self, listings: list[Listing]) -> ClipSet:
        """All windows, with their splits."""
        held_out = self._held_out()
        self._leave_doubles(held_out)
        windows: list[Window] = []
        sources: list[Source] = []
        for video, scan, kind, placed in self.taken:
            split: Split = "validation" if kind == "clip" and scan.content in held_out else "train"
            for window in placed:
                windows.append(self._window(video, scan, kind, window, split))
                sources.append(Source(video.footage, scan))
        counts = Counter(f"{w.kind}s for {'training' if w.split == 'train' else 'validation'}" for w in windows)
        report = DataReport(
            used=len(self.taken),
            skipped=(*(left for listing in listings for left in listing.skipped), *self.skipped),
            ignored=(*(left for listing in listings for left in listing.ignored), *self.ignored),
            partly=tuple(self.partly),
            notes=tuple(note for listing in listings for note in listing.notes),
            windows=dict(sorted(counts.items())),
        )
        return ClipSet(windows, sources, report)

    def _held_out(self) -> set[str]:
        """The groups of equal files that are validation: those a folder says, else a share by the hash of the name."""
        share = self.options.validation
        clips = [(video, scan) for video, scan, kind, _ in self.taken if kind == "clip"]
        said = {scan.content for video, scan in clips if video.hint == "validation"}
        self._said = bool(said)
        if said or share == 0:
            return said
        # Equal files lie on one side, whatever they are called; the first name of them decides.
        names: dict[str, str] = {}
        for video, scan in clips:
            group = scan.content
            names[group] = min(names.get(group, video.name), video.name)
        ranked = sorted(names, key=lambda group: unit("validation", names[group]))
        chosen = {group for group in ranked if unit("validation", names[group]) < share}
        if len(ranked) > 1:
            chosen = chosen or {ranked[0]}
            chosen -= {ranked[-1]} if len(chosen) == len(ranked) else set()
            return chosen
        return set()

    def _leave_doubles(self, held_out: set[str]) -> None:
        """A video of the training split that is in the validation split too is left out of training."""
        kept = []
        for one in self.taken:
            video, scan, kind, _ = one
            if video.hint in ("", "train") and scan.content in held_out and self._said and kind == "clip":
                self.ignored.append((video.footage.label, "the same video is in the validation split"))
            else:
                kept.append(one)
        self.taken = kept

    def _window(self, video: VideoItem, scan: Scan, kind: Kind, placed: Placed, split: Split) -> Window:
        size = nearest_size(self.sizes, *_shown_size(scan))
        frames = 1 if kind == "picture" else self.options.num_frames
        shape = [scan.box, scan.aspect, placed.shot, placed.start, placed.fps, frames, size, kind]
        said = json.dumps([_FORMAT, PIXELS, scan.content, scan.timing, *shape])
        return Window(
            key=hashlib.sha256(said.encode()).hexdigest()[:32],
            name=video.name,
            caption=video.caption or self.options.caption,
            split=split,
            start=placed.start,
            fps=placed.fps,
            num_frames=frames,
            height=size[0],
            width=size[1],
            kind=kind,
        )


def _shown_size(scan: Scan) -> tuple[float, float]:
    """Width and height of the picture in square pixels."""
    left, top, right, bottom = scan.box
    return (right - left) * scan.aspect, float(bottom - top)


def _too_short(scan: Scan, options: ClipOptions) -> str:
    longest = f"{scan.duration:.2f} s" if scan.shots == 1 else f"{scan.shots} shots in {scan.duration:.2f} s"
    rate = min(options.fps[-1], scan.rate)
    return (
        f"too short: {longest} at {scan.rate:g} frames/s, but {options.num_frames} frames at {rate:g} frames/s take "
        f"{(options.num_frames - 1) / rate:.2f} s in one shot; lower data.num_frames or raise data.fps"
    )
