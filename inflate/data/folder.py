"""Finding videos: webdataset shards, a Hugging Face videofolder, a prepared data set, or any plain folder of files.

Nothing is decoded here; ``open_videos`` only lists, and each ``VideoItem`` knows where its bytes lie.
"""

import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from inflate.data.decode import VIDEO_SUFFIXES
from inflate.errors import InputError

Kind = Literal["clip", "still"]
_STILL_SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class VideoItem:
    """One listed file: ``path`` itself, or with ``offset`` >= 0 the ``size`` bytes from there in a tar archive.

    ``caption`` is empty where there is none; ``loop`` None leaves the answer to the file itself. ``fit`` says how it
    becomes square: prepared pictures are padded with white, a user's videos are centre-cropped.
    """

    name: str
    path: Path
    suffix: str
    split: str = "train"
    kind: Kind = "clip"
    caption: str = ""
    keywords: tuple[str, ...] = ()
    loop: bool | None = None
    offset: int = -1
    size: int = -1
    fit: Literal["crop", "pad"] = "crop"

    @property
    def label(self) -> str:
        """What to call the file in a sentence; ends in its suffix."""
        return str(self.path) if self.offset < 0 else f"{self.path}:{self.name}{self.suffix}"

    def read(self) -> bytes:
        """The file's bytes."""
        with self.path.open("rb") as file:
            if self.offset < 0:
                return file.read()
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class VideoReport:
    """What became of the listed files: how many were ``used``, and (file, reason) for each one ``skipped``."""

    used: int
    skipped: tuple[tuple[str, str], ...] = ()

    def sentence(self) -> str:
        """One line for people, naming up to five of the skipped files."""
        if not self.skipped:
            return f"{self.used} files used, none skipped"
        named = "; ".join(f"{name} ({reason})" for name, reason in self.skipped[:5])
        more = f"; and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        return f"{self.used} files used, {len(self.skipped)} skipped: {named}{more}"


@dataclass(frozen=True)
class VideoSource:
    """The files of ``root`` in a fixed order, and those left out while listing with the reason."""

    root: Path
    layout: Literal["prepared", "shards", "videofolder", "plain"]
    items: tuple[VideoItem, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def open_videos(folder_or_shards: str | Path) -> VideoSource:
    """List the videos (and stills) of a folder, a tar shard, a folder of shards, or a prepared data set.

    A prepared data set (``inflate prepare``) gives its shards and its ``stills``; a videofolder with ``metadata.jsonl``
    gives captions and splits; any other folder gives every video below it, without captions, as the training split.
    Hidden files are left alone. Raises ``InputError`` when there is nothing to read.
    """
    root = Path(folder_or_shards)
    if not root.exists():
        raise InputError(f"there is no folder {root}; give a folder of videos or of webdataset shards")
    if root.is_file():
        if root.suffix != ".tar":
            raise InputError(f"{root} is a file; give a folder of videos, or a .tar shard")
        source = _list_shards(root, [root])
    elif (root / "shards").is_dir():
        shards = _list_shards(root, sorted((root / "shards").glob("*.tar")))
        stills = _list_metadata(root / "stills", kind="still") if (root / "stills").is_dir() else ((), ())
        items = tuple(replace(item, fit="pad") for item in (*shards.items, *stills[0]))
        source = VideoSource(root, "prepared", items, (*shards.skipped, *stills[1]))
    elif any(root.glob("*.tar")):
        source = _list_shards(root, sorted(root.glob("*.tar")))
    elif any(root.glob("metadata.jsonl")) or any(root.glob("*/metadata.jsonl")):
        source = VideoSource(root, "videofolder", *_list_metadata(root, kind="clip"))
    else:
        source = VideoSource(root, "plain", _list_plain(root))
    if not source.items:
        raise InputError(f"{root} holds no video files ({', '.join(sorted(VIDEO_SUFFIXES))}) and no .tar shards")
    return source


def _list_plain(root: Path) -> tuple[VideoItem, ...]:
    items = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            items.append(VideoItem(relative.with_suffix("").as_posix(), path, path.suffix.lower()))
    return tuple(items)


def _list_metadata(root: Path, kind: Kind) -> tuple[tuple[VideoItem, ...], tuple[tuple[str, str], ...]]:
    """Items named by ``metadata.jsonl`` in ``root`` or in its folders; a folder's name is the split."""
    items: list[VideoItem] = []
    skipped: list[tuple[str, str]] = []
    for table in sorted([*root.glob("metadata.jsonl"), *root.glob("*/metadata.jsonl")]):
        split = "train" if table.parent == root else "test" if table.parent.name in ("test", "validation") else "train"
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                path = table.parent / row["file_name"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f'{table} line {number} is not {{"file_name": …, "text": …}}; correct it') from error
            if not path.is_file():
                skipped.append((str(path), "metadata.jsonl names it but it is not there"))
                continue
            name = str(row.get("name") or path.relative_to(table.parent).with_suffix("").as_posix())
            items.append(VideoItem(name, path, path.suffix.lower(), split, kind, **_described(row)))
    return tuple(items), tuple(skipped)


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """Caption, keywords and looping from a metadata row or a shard's json."""
    caption = row.get("caption", row.get("text", ""))
    keywords = row.get("keywords", ())
    return {
        "caption": caption if isinstance(caption, str) else "",
        "keywords": tuple(str(k) for k in keywords) if isinstance(keywords, list) else (),
        "loop": row["loop"] if isinstance(row.get("loop"), bool) else None,
    }


def _list_shards(root: Path, shards: list[Path]) -> VideoSource:
    items: list[VideoItem] = []
    skipped: list[tuple[str, str]] = []
    for shard in shards:
        try:
            items.extend(_list_shard(shard))
        except (tarfile.TarError, EOFError, OSError) as error:
            skipped.append((str(shard), f"it is not a readable tar archive: {error}"))
    return VideoSource(root, "shards", tuple(items), tuple(skipped))


def _list_shard(shard: Path) -> list[VideoItem]:
    """The samples of one webdataset shard: members that share everything before the first dot of the file name."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    split = "test" if shard.name.startswith(("test", "val")) else "train"
    items = []
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            folder, _, file = member.name.rpartition("/")
            key, dot, extension = file.partition(".")
            if member.isfile() and key and dot:
                samples.setdefault(f"{folder}/{key}" if folder else key, {})[f".{extension.lower()}"] = member
        for key, members in samples.items():
            row: dict[str, Any] = {}
            if ".json" in members:
                try:
                    row = json.loads(_member(archive, members[".json"]))
                except ValueError:
                    row = {}
            if ".txt" in members and isinstance(row, dict):
                row.setdefault("text", _member(archive, members[".txt"]).decode("utf-8", "replace").strip())
            row = row if isinstance(row, dict) else {}
            for suffix, member in members.items():
                if suffix in VIDEO_SUFFIXES or suffix in _STILL_SUFFIXES:
                    kind: Kind = "clip" if suffix in VIDEO_SUFFIXES else "still"
                    item = VideoItem(key, shard, suffix, split, kind, **_described(row))
                    items.append(replace(item, offset=member.offset_data, size=member.size))
                    break
    return items


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""
