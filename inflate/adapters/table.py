"""The table of adapters, one row for each class of image models, and what others ask of it."""

from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters.adapter import DEFAULT_SIZE, Adapter
from inflate.adapters.aura_flow import AuraFlow
from inflate.adapters.dit import DiT
from inflate.adapters.flux import Flux
from inflate.adapters.flux2 import Flux2
from inflate.adapters.hidream import HiDream
from inflate.adapters.hunyuan_dit import HunyuanDiT
from inflate.adapters.lumina2 import Lumina2
from inflate.adapters.pixart import PixArt
from inflate.adapters.qwen_image import QwenImage
from inflate.adapters.sana import Sana
from inflate.adapters.sd3 import SD3
from inflate.adapters.unet import ConditionedUNet, PlainUNet
from inflate.adapters.z_image import ZImage
from inflate.errors import InputError, a

ADAPTERS: dict[str, Adapter] = {
    adapter.image_model_class.__name__: adapter
    for adapter in (
        ConditionedUNet(),
        PlainUNet(),
        DiT(),
        PixArt(),
        SD3(),
        Flux(),
        Sana(),
        QwenImage(),
        Lumina2(),
        ZImage(),
        Flux2(),
        AuraFlow(),
        HunyuanDiT(),
        HiDream(),
    )
}
IMAGE_MODEL_CLASSES: dict[str, type[Any]] = {name: adapter.image_model_class for name, adapter in ADAPTERS.items()}


def find_adapter(model: nn.Module) -> Adapter | None:
    """The adapter of `model`; None for what is of no class that can be inflated."""
    return next((one for one in ADAPTERS.values() if isinstance(model, one.image_model_class)), None)


def adapter_of(image_model: nn.Module) -> Adapter:
    """The adapter of `image_model`; `InputError` unless it is of a class that can be inflated."""
    adapter = find_adapter(image_model)
    if adapter is None:
        raise InputError(
            f"cannot inflate {a(type(image_model).__name__)}: "
            f"the image model must be one of diffusers' {', '.join(IMAGE_MODEL_CLASSES)}"
        )
    return adapter


def call_image_model(image_model: nn.Module, sample: Tensor, timestep: Any, **arguments: Any) -> Any:
    """The image model's own answer for pictures (B, C, H, W); its `sample` is (B, C', H', W')."""
    return adapter_of(image_model).call(image_model, sample, timestep, arguments)


def sample_size_of(image_model: nn.Module) -> tuple[int, int]:
    """Height and width the image model was made for; 32 each where its config does not say."""
    config: Any = image_model.config
    return adapter_of(image_model).sample_size(config) or (DEFAULT_SIZE, DEFAULT_SIZE)


def random_inputs(
    image_model: nn.Module,
    batch: int,
    size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """All arguments `call_image_model` needs for `batch` pictures, each with its own random values.

    Args:
        image_model: one that can be inflated, on any device; on the meta device the inputs are too.
        batch: number of pictures; every tensor has this first size.
        size: height and width of the sample; the config's `sample_size` by default.
        generator: a CPU generator.

    Raises:
        InputError: the config asks for a condition that is not known.
    """
    size = size or sample_size_of(image_model)
    return adapter_of(image_model).random_inputs(image_model, batch, size, generator)
