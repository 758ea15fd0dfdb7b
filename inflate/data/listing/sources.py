"""Which layout a path has, and its listing."""

from dataclasses import replace
from pathlib import Path

from inflate.data.listing.folders import caption_beside, list_folder
from inflate.data.listing.found import TABLES, VIDEOS, Listing, VideoItem, hint_of, walk
from inflate.data.listing.packed import is_saved_dataset, list_saved, list_shards
from inflate.data.listing.report import DataReport
from inflate.data.listing.tables import list_folder_of_tables, list_table, tables_in
from inflate.data.listing.text import prompts_beside
from inflate.data.reading.footage import Footage
from inflate.errors import InputError


def open_videos(path: str | Path, rate: float = 24.0, stills: bool = True, besides: Path | None = None) -> Listing:
    """List the videos (and single pictures, ``stills``) that a path names; each file there is accounted for.

    A folder of videos however deep, with captions beside them; tables of captions; webdataset shards, anywhere below;
    a prepared data set (``inflate prepare``), its shards and its stills; what ``datasets`` saved; folders of numbered
    pictures, ``rate`` a second; or a single such file. Hidden files and the folder ``besides`` are left alone.

    Raises:
        InputError: there is no such path, it is of no known layout, or it holds no video.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"there is no {root}; name a folder of videos, or a table or shard of them")
    listing = Listing(root, rate, stills, besides)
    if root.is_file():
        _list_file(root, listing)
    else:
        _list_root(listing)
    listing.leave_out_unwritable()
    if not listing.items and not listing.skipped:
        raise InputError(f"{root} holds no video files ({', '.join(sorted(VIDEOS))}) and no table or shard of them")
    if not listing.items:
        sentence = DataReport(0, tuple(listing.skipped), tuple(listing.ignored)).sentence()
        raise InputError(f"{root} names videos, but none of them is there ({sentence}); correct the paths")
    folder = listing.root.resolve()
    if hint_of(folder.name) in ("validation", "test") and any(not item.hint for item in listing.items):
        listing.notes.append(f"WARNING: {root} lies in a folder called {folder.name}, and counts as the training split")
    return listing


def _list_file(path: Path, listing: Listing) -> None:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        listing.layout = "shards"
        list_shards([path], listing)
    elif suffix in TABLES or prompts_beside(path):
        listing.layout = "tables"
        list_table(path, listing)
    elif suffix in VIDEOS:
        listing.items.append(VideoItem(path.stem, Footage(str(path), path, suffix), caption_beside(path, listing)))
    else:
        kinds = ", ".join(sorted([*VIDEOS, *TABLES, ".tar"]))
        raise InputError(f"{path} is neither a video nor a table or shard of them ({kinds}); give one, or a folder")


def _list_root(listing: Listing) -> None:
    root = listing.root
    if is_saved_dataset(root):
        listing.layout = "saved"
        list_saved(listing)
        return listing.account("not a part of the saved data set")
    if (root / "shards").is_dir() and (root / "dataset.json").is_file():
        return _list_prepared(listing)
    shards = _shards_below(root, listing)
    tables = tables_in(root, listing.besides)
    if tables:
        listing.layout = "tables"
        list_folder_of_tables(tables, listing)
    else:
        list_folder(listing)
    if shards:
        listing.layout = "shards"
        list_shards(shards, listing)
    return listing.account()


def _list_prepared(listing: Listing) -> None:
    """What ``inflate prepare`` wrote: shards, and stills in tables; its videofolder has the same clips once more."""
    listing.layout = "prepared"
    list_shards(_shards_below(listing.root / "shards", listing), listing)
    clips, stills = len(listing.items), listing.root / "stills"
    if listing.stills and stills.is_dir():
        for table in tables_in(stills, listing.besides):
            list_table(table, listing)
    # A still that moves is one all the same.
    kinds = (item.kind if number < clips else "still" for number, item in enumerate(listing.items))
    listing.items = [replace(item, kind=kind, fit="pad") for item, kind in zip(listing.items, kinds, strict=True)]
    listing.account("a prepared data set is read from its shards")


def _shards_below(folder: Path, listing: Listing) -> list[Path]:
    return [path for _, files in walk(folder, listing.besides) for path in files if path.suffix.lower() == ".tar"]


def train_on_all(listing: Listing) -> None:
    """Forget splits where nothing is left to train on beside what is held out, and say so."""
    hinted = {item.hint for item in listing.items}
    if hinted & {"", "train"}:
        return
    names = " and ".join(sorted(hinted))
    listing.notes.append(
        f"WARNING: all videos lie in a split called {names}; they are trained on, for there are no others"
    )
    listing.items = [replace(item, hint="") for item in listing.items]
