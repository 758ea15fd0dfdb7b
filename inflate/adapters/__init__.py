"""One adapter for each class of image models: its sites, its call, its conditions and its example inputs."""

from inflate.adapters.adapter import Adapter, PictureTokens
from inflate.adapters.sites import LAYERLESS, Blocks, Site, SiteKind, plain_module
from inflate.adapters.table import (
    ADAPTERS,
    IMAGE_MODEL_CLASSES,
    adapter_of,
    call_image_model,
    find_adapter,
    find_sites,
    random_inputs,
    sample_size_of,
)

__all__ = [
    "ADAPTERS",
    "IMAGE_MODEL_CLASSES",
    "LAYERLESS",
    "Adapter",
    "Blocks",
    "PictureTokens",
    "Site",
    "SiteKind",
    "adapter_of",
    "call_image_model",
    "find_adapter",
    "find_sites",
    "plain_module",
    "random_inputs",
    "sample_size_of",
]
