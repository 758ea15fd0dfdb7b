"""What a listing finds: videos with what is said about them, and everything else with the reason."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from inflate.data.listing.report import Left
from inflate.data.reading.footage import Footage

Hint = Literal["", "train", "validation", "test"]
Layout = Literal["plain", "tables", "shards", "prepared", "saved"]
_CAMERAS = (
    ".mp4 .mov .m4v .qt .f4v .webm .mkv .avi .mts .m2ts .ts .mpg .mpeg .vob .3gp .3g2 .wmv .asf .flv .ogv .mxf .dv"
)
# A .png may be animated, but hardly ever is.
VIDEOS = frozenset([*_CAMERAS.split(), ".gif", ".webp", ".apng", ".avif", ".avifs"])
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"})
TABLES = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})
_ARCHIVES = frozenset({".gz", ".tgz", ".zip", ".zst", ".xz", ".bz2", ".7z", ".rar"})
SPLITS: dict[str, Hint] = {
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


@dataclass(frozen=True)
class VideoItem:
    """One video, or a single picture (``kind`` "still") where those were asked for.

    ``hint`` is the split that its folder, shard, table or data set gives it, "" where none does. ``keywords`` and
    ``loop`` are what metadata say; ``loop`` None leaves the answer to the file. ``fit`` says how it becomes square:
    prepared pictures are padded with white, a user's videos are centre-cropped.
    """

    name: str
    footage: Footage
    caption: str = ""
    hint: Hint = ""
    kind: Literal["clip", "still"] = "clip"
    keywords: tuple[str, ...] = ()
    loop: bool | None = None
    fit: Literal["crop", "pad"] = "crop"

    @property
    def suffix(self) -> str:
        """What the file is called at its end, in small letters: ``.mp4``."""
        return self.footage.suffix

    @property
    def split(self) -> Literal["train", "test"]:
        """``test`` for everything that its place holds out."""
        return "test" if self.hint in ("validation", "test") else "train"


@dataclass
class Listing:
    """What a path names: items in a fixed order, and everything else below ``root``, its folder, with the reason.

    Pictures whose names end in numbers are the frames of a clip, ``rate`` a second. ``stills``: single pictures are
    listed too. The folder ``besides`` is left alone. ``touched`` are the real paths of files that were listed or read.
    """

    path: Path
    rate: float = 24.0
    stills: bool = False
    besides: Path | None = None
    layout: Layout = "plain"
    touched: set[str] = field(default_factory=set)
    items: list[VideoItem] = field(default_factory=list)
    skipped: list[Left] = field(default_factory=list)
    ignored: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The path, or its folder where it is a file."""
        return self.path.parent if self.path.is_file() else self.path

    def touch(self, *paths: Path) -> None:
        """These files are accounted for."""
        self.touched.update(os.path.realpath(path) for path in paths)

    def account(self, reason: str = "") -> None:
        """Every file below the root that was not touched is ignored, for ``reason`` or for what it is."""
        for _, files in walk(self.root, self.besides):
            rest = [path for path in files if os.path.realpath(path) not in self.touched]
            self.ignored.extend((str(path), reason or why_ignored(path)) for path in rest)
            self.touch(*rest)

    def leave_out_unwritable(self) -> None:
        """Skip what is called by letters that no text file can hold, and make all else that is said such text.

        File systems and tar keep any bytes as a name; Python has those that are not UTF-8 as lone surrogates, which
        JSON can also spell in a caption.
        """
        kept = []
        for item in self.items:
            if all(_is_text(name) for name in (item.name, item.footage.label, *item.footage.pictures)):
                keywords = tuple(_as_text(word) for word in item.keywords)
                kept.append(replace(item, caption=_as_text(item.caption), keywords=keywords))
            else:
                self.skipped.append((item.footage.label, "its name is not UTF-8; rename it"))
        self.items = kept
        self.skipped = [(_as_text(name), _as_text(reason)) for name, reason in self.skipped]
        self.ignored = [(_as_text(name), _as_text(reason)) for name, reason in self.ignored]
        self.notes = [_as_text(note) for note in self.notes]

    def lists(self, suffix: str) -> bool:
        """Whether a file that ends so is looked for."""
        return suffix in VIDEOS or (self.stills and suffix in PICTURES)

    def name_of(self, path: Path) -> str:
        """What to call a file: its path below ``root`` without the suffix."""
        inside = path.relative_to(self.root) if self.root in path.parents else Path(path.name)
        return inside.with_suffix("").as_posix()

    def parts_of(self, folder: Path) -> tuple[str, ...]:
        """Names of the folders from ``root`` down to ``folder``."""
        return folder.relative_to(self.root).parts if self.root in folder.parents else ()


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


def hint_of(*names: str) -> Hint:
    """The split that folder names give; the innermost that gives one counts."""
    for name in reversed(names):
        if name.lower() in SPLITS:
            return SPLITS[name.lower()]
    return ""


def kind_of(suffix: str) -> Literal["clip", "still"]:
    """What a file that ends so is listed as."""
    return "clip" if suffix in VIDEOS else "still"


def why_ignored(path: Path) -> str:
    """Why a file that is looked for by nobody was left alone."""
    suffix = path.suffix.lower()
    if path.name.lower() == "videos.txt":
        return "a list of videos, but none of prompts (prompts.txt) lies beside it"
    if suffix == ".txt":
        return f"a caption, but no video called {path.stem} lies beside it"
    if suffix in PICTURES:
        return "a single picture; data.pictures takes a folder of them"
    if suffix in _ARCHIVES:
        return "a compressed archive; unpack it first"
    return "not a video"


def _is_text(name: str) -> bool:
    return _as_text(name) == name


def _as_text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
