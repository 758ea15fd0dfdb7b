"""Which videos a path names, with their captions, and what became of everything else that lies there."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inflate.data.clips.report import Left
from inflate.data.clips.text import read_caption
from inflate.data.reading.footage import Footage

Hint = Literal["", "train", "validation", "test"]
_CAMERAS = ".mp4 .mov .m4v .qt .webm .mkv .avi .mts .m2ts .ts .mpg .mpeg .vob .3gp .3g2 .wmv .flv .ogv"
VIDEOS = frozenset([*_CAMERAS.split(), ".gif", ".webp", ".apng"])
STILLS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"})
TABLES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})
_SPLITS: dict[str, Hint] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_NUMBERED = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Listed:
    """One video: ``hint`` is the split that its folder, shard or data set gives it, "" where none does."""

    name: str
    footage: Footage
    caption: str = ""
    hint: Hint = ""


@dataclass
class Listing:
    """Everything found: videos in a fixed order, and files left out with the reason."""

    videos: list[Listed] = field(default_factory=list)
    skipped: list[Left] = field(default_factory=list)
    ignored: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def hint_of(*names: str) -> Hint:
    """The split that folder names give; the innermost that gives one counts."""
    for name in reversed(names):
        if name.lower() in _SPLITS:
            return _SPLITS[name.lower()]
    return ""


def walk(root: Path, besides: Path | None = None) -> Iterator[tuple[Path, list[Path]]]:
    """Folders below ``root`` with their files, sorted; hidden ones and the folder ``besides`` are left alone.

    Links to folders are followed, each folder once, so that a link to one above does not lead round in circles.
    """
    seen = {os.path.realpath(besides)} if besides else set()
    for folder, folders, files in os.walk(root, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith(".") and real not in seen and real != os.path.realpath(root):
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not name.startswith(".")]


def list_folder(root: Path, rate: float, listing: Listing, besides: Path | None = None) -> None:
    """Every video below ``root``, with the caption of ``clip.txt`` beside ``clip.mp4``; folders of numbered pictures.

    Pictures whose names end in numbers are the frames of a clip, ``rate`` a second, where no video lies beside them.
    """
    for folder, files in walk(root, besides):
        list_files(root, folder, files, rate, listing)


def list_files(root: Path, folder: Path, files: list[Path], rate: float, listing: Listing) -> None:
    """The videos and numbered pictures of one folder."""
    videos = [path for path in files if path.suffix.lower() in VIDEOS]
    captions = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    numbered = {} if videos else _numbered([path for path in files if path.suffix.lower() in STILLS])
    hint = hint_of(*folder.relative_to(root).parts)
    spoken: set[str] = set()
    for path in videos:
        # `clip.mp4.txt` is what some captioners write.
        own = captions.get(path.stem) or captions.get(path.name)
        spoken.update({own.stem} if own else ())
        name = path.relative_to(root).with_suffix("").as_posix()
        footage = Footage(str(path), path, path.suffix.lower())
        listing.videos.append(Listed(name, footage, read_caption(own) if own else "", hint))
    for prefix, pictures in numbered.items():
        own = captions.get(prefix.rstrip("_-. ")) or captions.get("caption") or _beside(folder, root)
        spoken.update({own.stem} if own and own.parent == folder else ())
        base = folder.relative_to(root) / prefix.rstrip("_-. ") if len(numbered) > 1 else folder.relative_to(root)
        name = base.as_posix() if base.parts else folder.name
        suffix = pictures[0].suffix.lower()
        label = f"{folder / pictures[0].name} … {pictures[-1].name}"
        footage = Footage(label, folder, suffix, pictures=tuple(p.name for p in pictures), rate=rate)
        listing.videos.append(Listed(name, footage, read_caption(own) if own else "", hint))
    frames = {path for pictures in numbered.values() for path in pictures}
    for path in files:
        if path in frames or path.suffix.lower() in VIDEOS:
            continue
        if path.suffix.lower() == ".txt" and (path.stem in spoken or (folder / path.stem).is_dir()):
            continue  # a caption that was read, of a video or of a folder of pictures
        listing.ignored.append((str(path), _why_ignored(path)))


def _beside(folder: Path, root: Path) -> Path | None:
    """The caption of a folder of pictures: ``clip.txt`` beside ``clip/``."""
    path = folder.with_suffix(".txt") if folder != root else folder / ".none"
    return path if path.is_file() else None


def _numbered(pictures: list[Path]) -> dict[str, list[Path]]:
    """Runs of pictures whose names differ in a number at the end, in order of the number."""
    runs: dict[tuple[str, str], list[tuple[int, str, Path]]] = {}
    for path in pictures:
        match = _NUMBERED.match(path.stem)
        if match:
            runs.setdefault((match[1], path.suffix.lower()), []).append((int(match[2]), path.name, path))
    return {prefix: [p for _, _, p in sorted(run)] for (prefix, _), run in sorted(runs.items()) if len(run) > 1}


def _why_ignored(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return f"a caption, but no video called {path.stem} lies beside it"
    if suffix in STILLS:
        return "a single picture; data.pictures takes a folder of them"
    return "not a video"
