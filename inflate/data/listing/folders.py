"""Folders of videos, with captions beside them, and folders of numbered pictures."""

import re
from itertools import pairwise
from pathlib import Path
from statistics import median_low

from inflate.data.listing.found import PICTURES, VIDEOS, Hint, Listing, VideoItem, hint_of, kind_of, walk
from inflate.data.listing.text import read_caption
from inflate.data.reading.footage import Footage

_NUMBERED = re.compile(r"^(.*?)(\d+)$")
_NAMED = 3
_BETWEEN = "_-. "  # what stands between a clip's name and a frame's number


def list_folder(listing: Listing) -> None:
    """Every video below the root, with the caption of ``clip.txt`` beside ``clip.mp4``; folders of numbered pictures.

    Pictures whose names end in numbers are the frames of a clip where no video lies beside them.
    """
    for folder, files in walk(listing.root, listing.besides):
        list_files(folder, files, listing)


def list_files(folder: Path, files: list[Path], listing: Listing) -> None:
    """The videos and pictures of one folder, with their captions."""
    runs = frame_runs(files)
    frames = {path for _, run in runs for path in run}
    hint = hint_of(*listing.parts_of(folder))
    for path in files:
        suffix = path.suffix.lower()
        if listing.lists(suffix) and path not in frames:
            caption = caption_beside(path, listing)
            footage = Footage(str(path), path, suffix)
            listing.items.append(VideoItem(listing.name_of(path), footage, caption, hint, kind_of(suffix)))
            listing.touch(path)
    for prefix, run in runs:
        called = prefix.rstrip(_BETWEEN)
        base = folder / called if len(runs) > 1 else folder
        name = base.relative_to(listing.root).as_posix() if base != listing.root else folder.name
        listing.items.extend(numbered(run, name, called, hint, listing))


def numbered(
    run: list[Path], name: str, called: str, hint: Hint, listing: Listing, caption: str = ""
) -> list[VideoItem]:
    """The clip of numbered pictures, ``called`` so in their names; it may have its caption beside them or its folder.

    Where numbers are missing there is a clip on each side, for one clip over the gap would move too fast there; the
    listing's notes name the gap.
    """
    folder = run[0].parent
    captions = [folder / f"{called}.txt", folder / "caption.txt"]
    if folder != listing.root:
        captions.append(folder.with_name(f"{folder.name}.txt"))
    caption = caption or _first_caption(captions, listing)
    listing.touch(*run)
    pieces, gaps = _cut_at_gaps(run)
    if gaps:
        first = ", ".join(gaps[:_NAMED])
        more = f" and {len(gaps) - _NAMED} more gaps" if len(gaps) > _NAMED else ""
        listing.notes.append(f"{name}: numbers {first}{more} are missing; it is cut there")
    items = []
    for piece in pieces:
        if len(piece) == 1:
            listing.ignored.append((str(piece[0]), "a frame alone between missing numbers"))
            continue
        label = f"{piece[0]} … {piece[-1].name}"
        pictures = tuple(path.name for path in piece)
        footage = Footage(label, folder, piece[0].suffix.lower(), pictures=pictures, rate=listing.rate)
        called = name if len(pieces) == 1 else f"{name} {_number(piece[0])}-{_number(piece[-1])}"
        items.append(VideoItem(called, footage, caption, hint))
    return items


def _cut_at_gaps(run: list[Path]) -> tuple[list[list[Path]], list[str]]:
    """The pieces of a run on each side of missing numbers, and what is missing: ``5-7``.

    Numbers may count in any steps, such as those of every tenth frame or of times in milliseconds; where a step is as
    long as two a frame is missing.
    """
    numbers = [_number(path) for path in run]
    step = max(1, median_low([after - before for before, after in pairwise(numbers)]))
    pieces, gaps = [[run[0]]], []
    for path, (before, after) in zip(run[1:], pairwise(numbers), strict=True):
        if after - before >= 2 * step:
            first, last = before + step, after - step
            gaps.append(f"{first}-{last}" if last > first else f"{first}")
            pieces.append([])
        pieces[-1].append(path)
    return pieces, gaps


def _number(path: Path) -> int:
    match = _NUMBERED.match(path.stem)
    assert match is not None
    return int(match[2])


def caption_beside(path: Path, listing: Listing) -> str:
    """What ``clip.txt`` says beside ``clip.mp4``, or a file of another name that captioners write."""
    names = [path.with_suffix(suffix) for suffix in (".txt", ".TXT", ".caption")]
    return _first_caption([*names, path.with_name(f"{path.name}.txt")], listing)


def _first_caption(paths: list[Path], listing: Listing) -> str:
    own = next((path for path in paths if path.is_file()), None)
    if own is None:
        return ""
    listing.touch(own)
    return read_caption(own)


def frame_runs(files: list[Path]) -> list[tuple[str, list[Path]]]:
    """(what comes before the number, pictures in order of it) of pictures that differ in a number at the end of their
    names; none beside a video, of which they are thumbnails."""
    if any(path.suffix.lower() in VIDEOS for path in files):
        return []
    runs: dict[tuple[str, str], list[tuple[int, str, Path]]] = {}
    for path in files:
        match = _NUMBERED.match(path.stem)
        if match and path.suffix.lower() in PICTURES:
            runs.setdefault((match[1], path.suffix.lower()), []).append((int(match[2]), path.name, path))
    return [(prefix, [path for _, _, path in sorted(run)]) for (prefix, _), run in sorted(runs.items()) if len(run) > 1]
