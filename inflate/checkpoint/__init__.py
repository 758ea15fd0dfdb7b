"""Models on disk: safetensors unless asked otherwise, checked by their headers first, written whole or not at all."""

from inflate.checkpoint.convert import Conversion, Inspection, convert, deflate_folder, inspect
from inflate.checkpoint.fingerprint import architecture_fingerprint, has_fingerprint, weights_fingerprint
from inflate.checkpoint.kinds import what_it_is
from inflate.checkpoint.reading import load_image_model
from inflate.checkpoint.saving import load, load_temporal, save, save_temporal
from inflate.checkpoint.source import Source, find_source, read_config, resolve_path

__all__ = [
    "Conversion",
    "Inspection",
    "Source",
    "architecture_fingerprint",
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
