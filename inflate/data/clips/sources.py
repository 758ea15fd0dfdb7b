"""Which layout a path has, and its listing."""

from pathlib import Path

from inflate.data.clips.listing import TABLES, VIDEOS, Listed, Listing, list_folder, walk
from inflate.data.clips.options import ClipOptions
from inflate.data.clips.packed import is_saved_dataset, list_saved, list_shards
from inflate.data.clips.tables import list_folder_of_tables, list_table, tables_in
from inflate.data.clips.text import read_caption
from inflate.data.reading.footage import Footage
from inflate.errors import InputError


def list_clips(options: ClipOptions) -> Listing:
    """The videos that ``options.path`` names.

    Raises:
        InputError: there is no such path, it is of no known layout, or it holds no video.
    """
    root = Path(options.path)
    if not root.exists():
        raise InputError(f"there is no {root}; data.path names a folder of videos, or a table or shard of them")
    listing = Listing()
    if root.is_file():
        _list_file(root, listing)
    else:
        _list_folder(root, options, listing)
    if not listing.videos and not listing.skipped:
        raise InputError(f"{root} holds no video files ({', '.join(sorted(VIDEOS))}) and no table or shard of them")
    if not listing.videos:
        from inflate.data.clips.report import DataReport

        sentence = DataReport(0, tuple(listing.skipped), tuple(listing.ignored)).sentence()
        raise InputError(f"{root} names videos, but none of them is there ({sentence}); correct the paths")
    return _with_splits(listing)


def _list_file(path: Path, listing: Listing) -> None:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        list_shards(path.parent, [path], listing)
    elif suffix in TABLES:
        list_table(path, path.parent, listing)
    elif suffix in VIDEOS:
        own = path.with_suffix(".txt")
        caption = read_caption(own) if own.is_file() else ""
        listing.videos.append(Listed(path.stem, Footage(str(path), path, suffix), caption))
    else:
        kinds = ", ".join(sorted([*VIDEOS, *TABLES, ".tar"]))
        raise InputError(f"{path} is neither a video nor a table or shard of them ({kinds}); give one, or a folder")


def _list_folder(root: Path, options: ClipOptions, listing: Listing) -> None:
    besides, rate = options.cache_folder, options.fps[-1]
    if is_saved_dataset(root):
        return list_saved(root, listing)
    # `inflate prepare` writes shards/ and stills/; the stills are for data.pictures.
    top = root / "shards" if (root / "shards").is_dir() else root
    shards = [path for _, files in walk(top, besides) for path in files if path.suffix.lower() == ".tar"]
    if top != root and shards:
        return list_shards(root, shards, listing)
    tables = tables_in(root, besides)
    if tables:
        list_folder_of_tables(root, tables, rate, listing, besides)
    else:
        list_folder(root, rate, listing, besides)
    if shards:
        # The listing above left the archives themselves out.
        names = {str(shard) for shard in shards}
        listing.ignored = [left for left in listing.ignored if left[0] not in names]
        list_shards(root, shards, listing)
    return None


def _with_splits(listing: Listing) -> Listing:
    """Splits that names give count only where something is left to train on."""
    hinted = {video.hint for video in listing.videos}
    if hinted & {"", "train"}:
        return listing
    names = " and ".join(sorted(hinted))
    listing.notes.append(f"all videos lie in a split called {names}; they are trained on, for there are no others")
    listing.videos = [Listed(v.name, v.footage, v.caption) for v in listing.videos]
    return listing
