"""Stages composed: the chain itself, its folder on disk, and what can be done with it (animate, extend, upscale, …)."""

from inflate.cascade.chain import Cascade
from inflate.cascade.folder import INDEX_NAME, family_folder
from inflate.cascade.output import CascadeOutput, Frames, OutputType, Progress, StageCallback, StepCallback

__all__ = [
    "INDEX_NAME",
    "Cascade",
    "CascadeOutput",
    "Frames",
    "OutputType",
    "Progress",
    "StageCallback",
    "StepCallback",
    "family_folder",
]
