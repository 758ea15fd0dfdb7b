"""Text files as people write them: UTF-8 with or without a mark, UTF-16, old Windows pages, any line ends."""

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inflate.data.extras import needs_training_extra
from inflate.errors import InputError
from inflate.staging import scratch_folder

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 1 << 16
_VIDEOS, _PROMPTS = "videos.txt", ("prompts.txt", "prompt.txt", "captions.txt")


def encoding_of(path: Path) -> str:
    """The encoding a text file was most likely written in."""
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    return encoding_of_bytes(start)


def encoding_of_bytes(start: bytes) -> str:
    """The encoding of text without a mark."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    # Every second byte of Western text in UTF-16 is zero.
    if start[1::2].count(0) > len(start) // 4:
        return "utf-16-le"
    if start[::2].count(0) > len(start) // 4:
        return "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def decode_text(data: bytes) -> str:
    """Bytes of a caption as text."""
    return data.decode(encoding_of_bytes(data[:_LOOKED_AT]), "replace")


def one_line(text: str) -> str:
    """A caption without line ends and doubled spaces."""
    return " ".join(text.replace("\ufeff", "").split())


def read_caption(path: Path) -> str:
    """The caption in a text file."""
    return one_line(decode_text(path.read_bytes()))


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or row number from 1, row) of a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` table, or a list
    of videos with one of prompts beside it.

    Raises:
        InputError: a row that cannot be read, by its number, or two lists that are not as long as each other.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from _paired(path)
    elif suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in (".csv", ".tsv"):
        yield from _csv(path)
    elif suffix == ".json":
        yield from _json(path)
    else:
        yield from _jsonl(path)


def prompts_beside(videos: Path) -> Path | None:
    """The list of prompts that goes line by line with a list of videos, ``videos.txt`` (finetrainers, CogVideoX)."""
    if videos.name.lower() != _VIDEOS:
        return None
    return next((found for name in _PROMPTS if (found := videos.with_name(name)).is_file()), None)


def _paired(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    prompts = prompts_beside(path)
    lists = [decode_text(one.read_bytes()).rstrip().splitlines() for one in (path, prompts) if one is not None]
    if prompts is None or len(lists[0]) != len(lists[1]):
        beside = "none of prompts lies beside it" if prompts is None else f"{prompts.name} has {len(lists[1])}"
        raise InputError(
            f"{path} has {len(lists[0])} lines and {beside}; the two go together line by line: correct them"
        )
    for number, (video, prompt) in enumerate(zip(*lists, strict=True), start=1):
        yield number, {"file_name": one_line(video), "text": prompt}


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """A list of objects; a file of one object a line is read as such, whatever it is called."""
    try:
        rows = json.loads(path.read_text(encoding=encoding_of(path)))
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        yield from _jsonl(path)
        return
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path} entry {number} is no JSON object; correct it")
        yield number, row


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding=encoding_of(path)) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip().strip("\ufeff"):
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                raise InputError(f"{path} line {number} is no JSON object on a line of its own; correct it") from error
            yield number, row


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding=encoding_of(path), newline="") as file:
        first = file.readline()
        file.seek(0)
        comma = max(",;\t", key=first.count)
        try:
            for number, row in enumerate(csv.DictReader(file, delimiter=comma), start=1):
                yield number, {(key or "").strip(): value for key, value in row.items() if isinstance(value, str)}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a CSV table ({error}); save it again as UTF-8") from error


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with needs_training_extra():
        from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled
    shown = is_progress_bar_enabled()
    with scratch_folder() as folder:
        try:
            disable_progress_bars()
            table = Dataset.from_parquet(str(path), cache_dir=str(folder))
            for number, row in enumerate(table, start=1):
                yield number, dict(row)
            del table
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be read as a parquet table ({reason}); write it again") from error
        finally:
            if shown:
                enable_progress_bars()
