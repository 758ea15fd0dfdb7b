"""Videos packed together: webdataset's tar shards, and folders that Hugging Face's ``datasets`` saved."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from inflate.data.extras import needs_training_extra
from inflate.data.listing.found import PICTURES, SPLITS, VIDEOS, Hint, Listing, VideoItem, hint_of, kind_of, walk
from inflate.data.listing.tables import caption_of, described
from inflate.data.listing.text import decode_text, one_line
from inflate.data.reading.footage import Footage, open_table
from inflate.errors import InputError

_CAPTIONS = (".txt", ".caption", ".text")
_SAVED = frozenset({"dataset_dict.json", "dataset_info.json", "state.json"})
_SHARD_SPLIT = re.compile(rf"^({'|'.join(SPLITS)})(?=$|[-_.]?\d|[-_.])")


def list_shards(shards: list[Path], listing: Listing) -> None:
    """The samples of webdataset shards: members that share everything before the first dot of their file name.

    The caption is that of ``key.txt`` or in ``key.json``. Members are read where they lie in the archive.
    """
    for shard in shards:
        listing.touch(shard)
        try:
            with tarfile.open(shard, "r:") as archive:
                _list_shard(shard, archive, listing)
        except (tarfile.TarError, EOFError, OSError) as error:
            listing.skipped.append(
                (str(shard), f"not a readable tar archive ({error}); compressed ones are unpacked first")
            )


def _list_shard(shard: Path, archive: tarfile.TarFile, listing: Listing) -> None:
    hint = split_of_shard(shard.name) or hint_of(*listing.parts_of(shard.parent))
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in archive:
        folder, _, file = member.name.removeprefix("./").rpartition("/")
        if member.isdir() or file.startswith("."):  # hidden files are left alone here too
            continue
        key, dot, extension = file.partition(".")
        if not member.isfile():
            listing.ignored.append((f"{shard}:{member.name}", "a link in the archive, not a file"))
        elif dot:
            sample = samples.setdefault(f"{folder}/{key}" if folder else key, {})
            replaced = sample.pop(f".{extension.lower()}", None)
            if replaced is not None:
                listing.ignored.append((f"{shard}:{replaced.name}", "a later member of that name takes its place"))
            sample[f".{extension.lower()}"] = member
        else:
            listing.ignored.append((f"{shard}:{member.name}", "not a video"))
    for key, members in samples.items():
        inner = hint_of(*key.split("/")[:-1]) or hint
        # In a name such as `clip.v2.mp4` what follows the last dot says what it is.
        found = [suffix for suffix in members if _kind(suffix) in VIDEOS]
        found = found or [suffix for suffix in members if listing.lists(_kind(suffix))][:1]
        for suffix in found:
            member, kind = members[suffix], _kind(suffix)
            said = _said(archive, members, suffix.removesuffix(kind))
            footage = Footage(f"{shard}:{member.name}", shard, kind, offset=member.offset_data, size=member.size)
            name = key + suffix.removesuffix(kind)
            listing.items.append(VideoItem(name, footage, hint=inner, kind=kind_of(kind), **said))
        rest = [suffix for suffix in members if suffix not in found and _kind(suffix) not in (*_CAPTIONS, ".json")]
        if found:
            listing.ignored.extend((f"{shard}:{members[suffix].name}", _why_beside(_kind(suffix))) for suffix in rest)
        else:
            listing.ignored.append((f"{shard}:{key}", _why_none([_kind(suffix) for suffix in rest])))


def _why_beside(kind: str) -> str:
    """Why a member is left out of a sample of which another one is taken."""
    if kind in PICTURES:
        return "a picture beside the one or the video that its sample gives; numbered frames are read from folders"
    return "not a video"


def _why_none(kinds: list[str]) -> str:
    """Why nothing is taken of a sample with members of these kinds beside its captions."""
    pictures = sum(kind in PICTURES for kind in kinds)
    if pictures > 1:
        return f"{pictures} pictures and no video; numbered frames are read from folders: unpack the shard"
    return "a single picture" if pictures else "no video among its members"


def _kind(suffix: str) -> str:
    """``.mp4`` of ``.v2.mp4``."""
    return f".{suffix.rpartition('.')[2]}"


def _said(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], inner: str) -> dict[str, Any]:
    """What a sample's json and text say of its video ``key<inner>.mp4``; a file of just that name comes first."""
    stems = {suffix: suffix.removesuffix(_kind(suffix)) for suffix in members}
    others = {stem for suffix, stem in stems.items() if _kind(suffix) in VIDEOS and stem != inner}
    # Sorting is stable: among the rest the archive's own order counts.
    ranked = sorted((suffix for suffix in members if stems[suffix] not in others), key=lambda one: stems[one] != inner)
    said: dict[str, Any] = {}
    for suffix in ranked:
        if suffix.endswith(".json"):
            try:
                row: Any = json.loads(decode_text(_content(archive, members[suffix])))
            except ValueError:
                continue
            if isinstance(row, dict):
                said = described(row)
                break
    if not said.get("caption"):
        text = next((suffix for suffix in ranked if suffix.endswith(_CAPTIONS)), None)
        said["caption"] = one_line(decode_text(_content(archive, members[text]))) if text else ""
    return said


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


def list_saved(listing: Listing) -> None:
    """The rows of a data set that ``save_to_disk`` wrote; its splits are ours.

    Raises:
        InputError: it cannot be opened, or no column holds videos.
    """
    root, splits = listing.root, [""]
    if (root / "dataset_dict.json").is_file():
        try:
            splits = list(json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{root}/dataset_dict.json is damaged; save the data set again") from error
    for split in splits:
        _list_split(root, split, listing)
    for _, files in walk(root, listing.besides):
        listing.touch(*(path for path in files if path.suffix == ".arrow" or path.name in _SAVED))


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
        listing.items.append(VideoItem(name, footage, caption_of(row), hint))


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
