"""Models on disk: safetensors unless asked otherwise, checked by their headers first, written whole or not at all.

Names are looked up when first used: what headers tell (``convert``, ``inspect``) needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inflate.checkpoint.converting import Conversion, Inspection, convert, deflate_folder, inspect
    from inflate.checkpoint.fingerprint import architecture_fingerprint, has_fingerprint, weights_fingerprint
    from inflate.checkpoint.kinds import what_it_is
    from inflate.checkpoint.reading import load_image_model
    from inflate.checkpoint.saving import load, load_temporal, save, save_temporal
    from inflate.checkpoint.source import Source, config_and_class, find_source, read_config, resolve_path

_HOMES = {
    "converting": ("Conversion", "Inspection", "convert", "deflate_folder", "inspect"),
    "fingerprint": ("architecture_fingerprint", "has_fingerprint", "weights_fingerprint"),
    "kinds": ("what_it_is",),
    "reading": ("load_image_model",),
    "saving": ("load", "load_temporal", "save", "save_temporal"),
    "source": ("Source", "config_and_class", "find_source", "read_config", "resolve_path"),
}

__all__ = [
    "Conversion",
    "Inspection",
    "Source",
    "architecture_fingerprint",
    "config_and_class",
    "convert",
    "deflate_folder",
    "find_source",
    "has_fingerprint",
    "inspect",
    "load",
    "load_image_model",
    "load_temporal",
    "read_config",
    "resolve_path",
    "save",
    "save_temporal",
    "weights_fingerprint",
    "what_it_is",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home, and keep it."""
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update({one: getattr(import_module(f"{__name__}.{home}"), one) for one in _HOMES[home]})
    return globals()[name]
