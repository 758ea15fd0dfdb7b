"""Motion modules in the formats people have: AnimateDiff's and Hotshot-XL's files, diffusers' MotionAdapter."""

from inflate.checkpoint.formats.exporting import export_motion
from inflate.checkpoint.formats.identify import FileInspection, inspect_file, is_image_model
from inflate.checkpoint.formats.importing import Import, import_motion
from inflate.checkpoint.formats.layouts import LAYOUTS, Layout, motion_keys
from inflate.checkpoint.formats.motion import Motion, read_motion

__all__ = [
    "LAYOUTS",
    "FileInspection",
    "Import",
    "Layout",
    "Motion",
    "export_motion",
    "import_motion",
    "inspect_file",
    "is_image_model",
    "motion_keys",
    "read_motion",
]
