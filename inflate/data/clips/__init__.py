"""Clips to fine-tune on: listing, scanning, windows, reading, drawing, and encodings kept on disk.

What needs torch is looked up when first used: processes that only scan videos do not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inflate.data.clips.clips import ClipSet, open_clips
from inflate.data.clips.drawing import ClipSampler, draw_windows
from inflate.data.clips.options import ClipOptions
from inflate.data.clips.window import Window
from inflate.data.listing.report import DataReport

if TYPE_CHECKING:
    from inflate.data.clips.prefetch import ClipsBatch, PrefetchedClips
    from inflate.data.clips.store import EncodingStore

_HOMES = {"ClipsBatch": "prefetch", "PrefetchedClips": "prefetch", "EncodingStore": "store"}

__all__ = [
    "ClipOptions",
    "ClipSampler",
    "ClipSet",
    "ClipsBatch",
    "DataReport",
    "EncodingStore",
    "PrefetchedClips",
    "Window",
    "draw_windows",
    "open_clips",
]


def __getattr__(name: str) -> Any:
    """Import a public name that needs torch from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'inflate.data.clips' has no attribute {name!r}")
    return getattr(import_module(f"inflate.data.clips.{_HOMES[name]}"), name)
