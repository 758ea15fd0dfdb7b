"""One adapter for each class of image models: its places, its call, its conditions and its example inputs."""

from inflate.adapters.adapter import Adapter
from inflate.adapters.table import (
    ADAPTERS,
    IMAGE_MODEL_CLASSES,
    adapter_of,
    call_image_model,
    find_adapter,
    random_inputs,
    sample_size_of,
)

__all__ = [
    "ADAPTERS",
    "IMAGE_MODEL_CLASSES",
    "Adapter",
    "adapter_of",
    "call_image_model",
    "find_adapter",
    "random_inputs",
    "sample_size_of",
]
