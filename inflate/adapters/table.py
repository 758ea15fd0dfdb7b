"""The adapters of ``inflate/image_models.py``, one for each class of image models, and what others ask of them."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters.adapter import Adapter
from inflate.errors import InputError, a
from inflate.image_models import IMAGE_MODELS

DEFAULT_SIZE = (32, 32)  # height and width for a config without sample_size


def _adapter(target: str) -> type[Adapter]:
    module, name = target.split(":")
    return getattr(import_module(f"inflate.adapters.{module}"), name)


ADAPTERS = {name: _adapter(target) for name, target in IMAGE_MODELS.items()}
IMAGE_MODEL_CLASSES: dict[str, type[Any]] = {name: adapter.image_model_class for name, adapter in ADAPTERS.items()}


def find_adapter(model: Any) -> Adapter | None:
    """The adapter of `model`; None for what is of no class that can be inflated."""
    return next(
        (one(model.config, model) for one in ADAPTERS.values() if isinstance(model, one.image_model_class)), None
    )


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
    return adapter_of(image_model).call(sample, timestep, arguments)


def sample_size_of(image_model: nn.Module) -> tuple[int, int]:
    """Height and width the image model was made for; 32 each where its config does not say."""
    return adapter_of(image_model).sample_size or DEFAULT_SIZE


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
    return adapter_of(image_model).random_inputs(batch, size or sample_size_of(image_model), generator)
