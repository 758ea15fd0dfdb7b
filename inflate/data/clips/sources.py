"""Which layout a path has, and its listing."""

from pathlib import Path

from inflate.data.clips.listing import VIDEOS, Listing, list_folder
from inflate.data.clips.options import ClipOptions
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
    list_folder(root, options.fps[-1], listing, options.cache_folder)
    if not listing.videos:
        raise InputError(f"{root} holds no video files ({', '.join(sorted(VIDEOS))}) and no table or shard of them")
    return listing
