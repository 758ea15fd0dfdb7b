"""Captions in tables: Hugging Face's ``metadata.*``, WebVid's CSV, musubi-tuner's JSONL, finetrainers' two lists."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inflate.data.listing.folders import caption_beside, frame_runs, list_files, numbered
from inflate.data.listing.found import TABLES, Hint, Listing, VideoItem, hint_of, kind_of, walk
from inflate.data.listing.text import one_line, prompts_beside, read_rows
from inflate.data.reading.footage import Footage
from inflate.errors import InputError

_FILES = ("file_name", "video_path", "video", "path", "file", "filename")
_CAPTIONS = ("text", "caption", "prompt", "description")
_TIMES = ("start", "end", "start_time", "end_time", "start_sec", "end_sec", "start_frame", "end_frame")
_METADATA = "metadata"


def is_metadata(path: Path) -> bool:
    """Whether a file is the table of a Hugging Face folder."""
    return path.stem.lower() == _METADATA and path.suffix.lower() in TABLES - {".json"}


def caption_of(row: dict[str, Any]) -> str:
    """The caption in a row of a table, a shard's json or a data set; of several the first."""
    for column in _CAPTIONS:
        value = row.get(column) or row.get(f"{column}s")
        if isinstance(value, list | tuple):
            value = next((one for one in value if isinstance(one, str) and one.strip()), "")
        if isinstance(value, str) and value.strip():
            return one_line(value)
    return ""


def described(row: dict[str, Any]) -> dict[str, Any]:
    """Caption, keywords and looping that a row says, as :class:`VideoItem` takes them."""
    keywords = row.get("keywords")
    return {
        "caption": caption_of(row),
        "keywords": tuple(str(word) for word in keywords) if isinstance(keywords, list | tuple) else (),
        "loop": row["loop"] if isinstance(row.get("loop"), bool) else None,
    }


def list_table(table: Path, listing: Listing) -> None:
    """The videos that a table names, relative to its folder.

    Raises:
        InputError: no column names files, or a row cannot be read.
    """
    listing.touch(*filter(None, (table, prompts_beside(table))))
    hint = hint_of(*listing.parts_of(table.parent)) or _hint_of_table(table)
    timed: list[set[str]] = []
    for number, row in read_rows(table):
        wanted = _wanted(row, table)
        if wanted is None:
            raise _unknown(row, table, number)
        found = _find(wanted, table.parent)
        if found is None:
            listing.skipped.append((wanted[0], f"{table.name} row {number} names it but it is not there"))
            continue
        items = _items(row, found, hint, listing)
        if items is None:
            listing.ignored.append((str(found), f"{table.name} names it but it is not a video"))
            listing.touch(found)
            continue
        listing.items.extend(items)
        timed.append({column for column in _TIMES if str(row.get(column) or "").strip()})
    _warn_of_times(table, timed, listing)


def _warn_of_times(table: Path, timed: list[set[str]], listing: Listing) -> None:
    """A note where rows name parts of videos; ``timed`` are the columns by which each does."""
    rows, columns = sum(map(bool, timed)), set().union(*timed)
    if rows:
        listing.notes.append(
            f"WARNING: {table} says parts of videos in {rows} of {len(timed)} rows ({', '.join(sorted(columns))}); "
            "they are not used, each row is the whole video: cut the videos first"
        )


def _items(row: dict[str, Any], found: Path, hint: Hint, listing: Listing) -> list[VideoItem] | None:
    """What a row says of the file or folder of pictures that it names; None where that is no video."""
    split = hint_of(str(row.get("split") or "")) or hint or hint_of(*listing.parts_of(found.parent))
    if found.is_dir():
        runs = frame_runs(sorted(found.iterdir()))
        if not runs:
            return None
        prefix, run = runs[0]
        name = "/".join(listing.parts_of(found)) or found.name
        return numbered(run, name, prefix, split, listing, caption_of(row))
    suffix = found.suffix.lower()
    if not listing.lists(suffix):
        return None
    listing.touch(found)
    said, name = described(row), ""
    if "videoid" in row:
        said["caption"] = said["caption"] or one_line(str(row.get("name") or ""))
    elif isinstance(row.get("name"), str):
        name = row["name"]
    said["caption"] = said["caption"] or caption_beside(found, listing)
    footage = Footage(str(found), found, suffix)
    return [VideoItem(name or listing.name_of(found), footage, hint=split, kind=kind_of(suffix), **said)]


def list_folder_of_tables(tables: Iterable[Path], listing: Listing) -> None:
    """A folder with tables: what they name, and what lies in folders that none of them describes."""
    tables = list(tables)
    for table in tables:
        list_table(table, listing)
    homes = {table.parent for table in tables}
    for folder, files in walk(listing.root, listing.besides):
        if not any(home == folder or home in folder.parents for home in homes):
            list_files(folder, files, listing)
            continue
        rest = [path for path in files if os.path.realpath(path) not in listing.touched]
        rest = [path for path in rest if path.suffix.lower() != ".tar"]
        listing.ignored.extend((str(path), "the table of captions does not name it") for path in rest)
        listing.touch(*rest)


def tables_in(root: Path, besides: Path | None) -> list[Path]:
    """The tables that describe a folder: every ``metadata.*`` in it, or else those at its top that name videos."""
    metadata = [path for _, files in walk(root, besides) for path in files if is_metadata(path)]
    if metadata:
        return _one_a_folder(metadata)
    top = sorted(
        p for p in root.iterdir() if p.suffix.lower() in (".jsonl", ".csv", ".tsv", ".parquet") and p.is_file()
    )
    lists = [path for path in sorted(root.iterdir()) if prompts_beside(path)]
    return [*(path for path in top if not path.name.startswith(".") and _describes(path)), *lists]


def _one_a_folder(tables: list[Path]) -> list[Path]:
    """Of ``metadata.csv`` and ``metadata.jsonl`` in one folder the one that ``datasets`` would not take: an error."""
    seen: dict[Path, Path] = {}
    for table in tables:
        if table.parent in seen:
            raise InputError(f"{table.parent} has both {seen[table.parent].name} and {table.name}; keep one of them")
        seen[table.parent] = table
    return tables


def _describes(path: Path) -> bool:
    try:
        _, row = next(iter(read_rows(path)))
    except (InputError, StopIteration, OSError):
        return False
    return _wanted(row, path) is not None


def _wanted(row: dict[str, Any], table: Path) -> list[str] | None:
    """Where the row's video may lie, most likely first; None where no column says."""
    page = str(row.get("page_dir") or "").strip("/\\ ")
    if str(row.get("videoid") or "").strip():
        # WebVid: videos/<page_dir>/<videoid>.mp4, as its download script writes; flatter copies are common.
        file = f"{str(row['videoid']).strip()}.mp4"
        deep = [f"{page}/{file}"] if page and page.lower() != "nan" else []
        beside = [f"{table.stem}/{file}"]
        return [f"{top}{at}" for top in ("videos/", "") for at in [*deep, file]] + beside
    for column in (*_FILES, *(key for key in row if key.endswith("_file_name"))):
        value = row.get(column)
        if isinstance(value, dict):
            value = value.get("path")
        if isinstance(value, str) and value.strip():
            return [value.strip()]
    return None


def _find(wanted: list[str], home: Path) -> Path | None:
    for name in wanted:
        for spelt in (name, name.replace("\\", "/")):
            # Paths in tables are relative to the table; some trainers take them from where they were started.
            for path in (home / spelt, Path(spelt)):
                if path.exists():
                    return path
    return None


def _unknown(row: dict[str, Any], table: Path, number: int) -> InputError:
    columns = ", ".join(sorted(str(key) for key in row)) or "none"
    return InputError(
        f"{table} row {number} names no video (its columns are {columns}); a table needs a header with file_name and "
        "text, video_path and caption, or WebVid's videoid and name"
    )


def _hint_of_table(table: Path) -> Hint:
    parts = table.stem.lower().replace("-", "_").split("_")
    return hint_of(*parts)
