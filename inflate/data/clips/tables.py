"""Captions in tables: Hugging Face's ``metadata.*``, WebVid's CSV, musubi-tuner's JSONL."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inflate.data.clips.listing import TABLES, VIDEOS, Hint, Listed, Listing, hint_of, list_files, walk
from inflate.data.clips.text import one_line, read_rows
from inflate.data.reading.footage import Footage
from inflate.errors import InputError

_FILES = ("file_name", "video_path", "video", "path", "file", "filename")
_CAPTIONS = ("text", "caption", "prompt", "description")
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


def list_table(table: Path, root: Path, listing: Listing) -> set[Path]:
    """The videos that a table names, relative to its folder; returns their resolved paths.

    Raises:
        InputError: no column names files, or a row cannot be read.
    """
    named: set[Path] = set()
    hint: Hint = hint_of(*_parts(table.parent, root)) or _hint_of_table(table)
    for number, row in read_rows(table):
        wanted = _wanted(row, table)
        if wanted is None:
            raise _unknown(row, table, number)
        found = _find(wanted, table.parent)
        caption = caption_of(row) or (one_line(str(row.get("name") or "")) if "videoid" in row else "")
        if found is None:
            listing.skipped.append((wanted[0], f"{table.name} row {number} names it but it is not there"))
            continue
        if found.suffix.lower() not in VIDEOS:
            listing.ignored.append((str(found), f"{table.name} names it but it is not a video"))
            named.add(found.resolve())
            continue
        named.add(found.resolve())
        footage = Footage(str(found), found, found.suffix.lower())
        listing.videos.append(
            Listed(_name(found, root), footage, caption, hint or hint_of(*_parts(found.parent, root)))
        )
    return named


def list_folder_of_tables(root: Path, tables: Iterable[Path], rate: float, listing: Listing, besides: Path) -> None:
    """A folder with tables: what they name, and each other file with the reason why it is left alone."""
    tables = list(tables)
    named: set[Path] = set()
    for table in tables:
        named |= list_table(table, root, listing)
    homes = {table.parent for table in tables}
    for folder, files in walk(root, besides):
        covered = any(home == folder or home in folder.parents for home in homes)
        if not covered:
            list_files(root, folder, files, rate, listing)
            continue
        for path in files:
            if path in tables or path.resolve() in named:
                continue
            if path.suffix.lower() in VIDEOS:
                listing.ignored.append((str(path), "the table of captions does not name it"))
            else:
                listing.ignored.append((str(path), "not a video that a table names"))


def tables_in(root: Path, besides: Path) -> list[Path]:
    """The tables that describe a folder: every ``metadata.*`` in it, or else those at its top that name videos."""
    metadata = [path for _, files in walk(root, besides) for path in files if is_metadata(path)]
    if metadata:
        return _one_a_folder(metadata)
    top = sorted(
        p for p in root.iterdir() if p.suffix.lower() in (".jsonl", ".csv", ".tsv", ".parquet") and p.is_file()
    )
    return [path for path in top if not path.name.startswith(".") and _describes(path)]


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
                if path.is_file():
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


def _parts(folder: Path, root: Path) -> tuple[str, ...]:
    try:
        return folder.relative_to(root).parts
    except ValueError:
        return ()


def _name(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).with_suffix("").as_posix()
    except ValueError:
        return path.with_suffix("").name
