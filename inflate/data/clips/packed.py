"""Videos packed together: webdataset's tar shards, and folders that Hugging Face's ``datasets`` saved."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from inflate.data.clips.extras import needs_training_extra
from inflate.data.clips.listing import STILLS, VIDEOS, Hint, Listed, Listing, hint_of
from inflate.data.clips.tables import caption_of
from inflate.data.clips.text import decode_text, one_line
from inflate.data.reading.footage import Footage, open_table
from inflate.errors import InputError

_CAPTIONS = (".txt", ".caption", ".text")
_SHARD_SPLIT = re.compile(r"^(train|training|val|valid|validation|test|testing)(?=$|[-_.]?\d|[-_.])")


def list_shards(root: Path, shards: list[Path], listing: Listing) -> None:
    """The samples of webdataset shards: members that share everything before the first dot of their file name.

    The caption is that of ``key.txt`` or in ``key.json``. Members are read where they lie in the archive.
    """
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                _list_shard(root, shard, archive, listing)
        except (tarfile.TarError, EOFError, OSError) as error:
            listing.skipped.append(
                (str(shard), f"not a readable tar archive ({error}); compressed ones are unpacked first")
            )


def _list_shard(root: Path, shard: Path, archive: tarfile.TarFile, listing: Listing) -> None:
    folders = shard.relative_to(root).parts[:-1] if root in shard.parents else ()
    hint = split_of_shard(shard.name) or hint_of(*folders)
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in archive:
        folder, _, file = member.name.rpartition("/")
        key, dot, extension = file.partition(".")
        if member.isfile() and key and dot:
            samples.setdefault(f"{folder}/{key}" if folder else key, {})[f".{extension.lower()}"] = member
    for key, members in samples.items():
        # In a name such as `clip.v2.mp4` what follows the last dot says what it is.
        videos = [(suffix, m) for suffix, m in members.items() if Path(f"x{suffix}").suffix in VIDEOS]
        caption = _sample_caption(archive, members)
        for suffix, member in videos:
            kind = Path(f"x{suffix}").suffix
            name = key + suffix[: -len(kind)]
            label = f"{shard}:{member.name}"
            footage = Footage(label, shard, kind, offset=member.offset_data, size=member.size)
            listing.videos.append(Listed(name, footage, caption, hint))
        if not videos:
            pictures = any(Path(f"x{suffix}").suffix in STILLS for suffix in members)
            reason = "a single picture" if pictures else "no video among its members"
            listing.ignored.append((f"{shard}:{key}", reason))


def _sample_caption(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> str:
    for suffix, member in members.items():
        if suffix.endswith(".json"):
            try:
                row: Any = json.loads(decode_text(_content(archive, member)))
            except ValueError:
                continue
            if isinstance(row, dict) and (caption := caption_of(row)):
                return caption
    for suffix, member in members.items():
        if suffix.endswith(_CAPTIONS):
            return one_line(decode_text(_content(archive, member)))
    return ""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def split_of_shard(name: str) -> Hint:
    """The split in a shard's name: ``val-00001.tar``, but not ``valley-walks-000.tar``."""
    match = _SHARD_SPLIT.match(name.lower())
    return hint_of(match[1]) if match else ""


def is_saved_dataset(root: Path) -> bool:
    """Whether ``datasets`` saved this folder."""
    return (root / "dataset_dict.json").is_file() or (
        (root / "dataset_info.json").is_file() and (root / "state.json").is_file()
    )


def list_saved(root: Path, listing: Listing) -> None:
    """The rows of a data set that ``save_to_disk`` wrote; its splits are ours.

    Raises:
        InputError: it cannot be opened, or no column holds videos.
    """
    splits = [""]
    if (root / "dataset_dict.json").is_file():
        try:
            splits = list(json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{root}/dataset_dict.json is damaged; save the data set again") from error
    for split in splits:
        _list_split(root, split, listing)


def _list_split(root: Path, split: str, listing: Listing) -> None:
    folder = root / split if split else root
    with needs_training_extra():
        from datasets import load_from_disk
    try:
        raw: Any = load_from_disk(str(folder))
        column = _video_column(raw.features, folder)
        table = open_table(folder, column)
        said = table.remove_columns([name for name in table.column_names if name == column])
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} cannot be opened by datasets ({reason}); save the data set again") from error
    hint = hint_of(split)
    for number, path in enumerate(_paths(table, column)):
        row = said[number] if said.column_names else {}
        name = f"{split}/{number:06d}" if split else f"{number:06d}"
        kind = Path(path).suffix.lower() if Path(path).suffix.lower() in VIDEOS else ".mp4"
        if path.startswith("/"):
            footage = Footage(path, Path(path), kind)
        else:
            label = f"{folder} row {number}{kind}"
            footage = Footage(label, root, kind, row=number, column=column, split=split)
        listing.videos.append(Listed(name, footage, caption_of(row), hint))


def _paths(table: Any, column: str) -> list[str]:
    """For each row the absolute path of its video where it is a file of its own, else the name of what is inside.

    Read from the columns of the memory map, so that no video is copied only to learn its name.
    """
    found: list[str] = []
    for chunk in table.data.column(column).chunks:
        if not hasattr(chunk, "field"):
            plain = str(chunk.type) in ("string", "large_string")
            found += [str(path or "") for path in chunk.to_pylist()] if plain else [""] * len(chunk)
            continue
        inside = chunk.field("bytes").is_valid().to_pylist()
        names = [path or "" for path in chunk.field("path").to_pylist()]
        found += [Path(name).name if has else name for name, has in zip(names, inside, strict=True)]
    return found


def _video_column(features: Any, folder: Path) -> str:
    from datasets import Value, Video

    videos = [name for name, feature in features.items() if isinstance(feature, Video)]
    likely = ("video", "mp4", "video_path", "file_name", "path", "clip")
    plain = [
        name
        for name in likely
        if isinstance(features.get(name), Value) and features[name].dtype in ("binary", "large_binary", "string")
    ]
    structs = [name for name in likely if isinstance(features.get(name), dict)]
    for name in (*videos, *structs, *plain):
        return name
    raise InputError(f"{folder} has no column of videos (its columns are {', '.join(features)}); cast one to Video()")
