"""Folders of videos, with captions beside them, and folders of numbered pictures."""

import re
from pathlib import Path

from inflate.data.listing.found import PICTURES, VIDEOS, Hint, Listing, VideoItem, hint_of, kind_of, walk
from inflate.data.listing.text import read_caption
from inflate.data.reading.footage import Footage

_NUMBERED = re.compile(r"^(.*?)(\d+)$")
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
        listing.items.append(numbered(run, name, called, hint, listing))


def numbered(run: list[Path], name: str, called: str, hint: Hint, listing: Listing, caption: str = "") -> VideoItem:
    """A clip of numbered pictures, ``called`` so in their names; it may have its caption beside them or its folder."""
    folder, suffix = run[0].parent, run[0].suffix.lower()
    captions = [folder / f"{called}.txt", folder / "caption.txt"]
    if folder != listing.root:
        captions.append(folder.with_name(f"{folder.name}.txt"))
    footage = Footage(
        f"{run[0]} … {run[-1].name}", folder, suffix, pictures=tuple(p.name for p in run), rate=listing.rate
    )
    listing.touch(*run)
    return VideoItem(name, footage, caption or _first_caption(captions, listing), hint)


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
