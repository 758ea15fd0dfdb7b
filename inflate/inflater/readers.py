"""How each family of image models is read and called, so that the rest need not know which it has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from inflate.errors import InputError, a
from inflate.inflater.dit_calls import call_dit, call_flux, dit_in_channels
from inflate.inflater.dit_inputs import random_dit_inputs
from inflate.inflater.dit_sites import find_dit_sites
from inflate.inflater.inputs import random_inputs as random_unet_inputs
from inflate.inflater.schemes import Scheme, resolve_scheme
from inflate.inflater.sites import Site, plain_module
from inflate.inflater.unet_sites import find_unet_sites


@dataclass(frozen=True)
class Reader:
    """One family of image models.

    `call` takes pictures (B*F, C, H, W), time steps and the model's own other arguments, and answers as the model does,
    its `sample` being (B*F, C', H', W'). `random_inputs` makes the arguments of `call_image_model`.
    """

    family: str
    classes: dict[str, type[nn.Module]]
    find_sites: Callable[[nn.Module, Scheme], list[Site]]
    in_channels: Callable[[nn.Module], int]
    call: Callable[[nn.Module, Tensor, Any, dict[str, Any]], Any]
    random_inputs: Callable[[nn.Module, int, tuple[int, int] | None, torch.Generator | None], dict[str, Any]]
    # Names in the model's `forward` that the video model gives itself.
    given: tuple[str, ...] = ("self", "sample", "timestep", "return_dict")
    # Why a field of a scheme cannot be had, by the field's name.
    refused_fields: dict[str, str] = field(default_factory=dict)
    # What to choose then.
    instead: str = "another scheme ('inflate schemes' lists them)"


def _call_unet(image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
    return image_model(pictures, timestep, **arguments)


def _unet_in_channels(image_model: nn.Module) -> int:
    return int(plain_module(image_model.get_submodule("conv_in")).in_channels)  # type: ignore[arg-type]  # a Conv2d's int


UNETS = Reader(
    family="UNet",
    classes={"UNet2DConditionModel": UNet2DConditionModel, "UNet2DModel": UNet2DModel},
    find_sites=find_unet_sites,
    in_channels=_unet_in_channels,
    call=_call_unet,
    random_inputs=random_unet_inputs,
    refused_fields={
        "temporal_blocks": "temporal blocks go between the blocks of a transformer",
        "patch_frames": "frames are patched together only where there are patches, in a transformer",
    },
)


def _transformers(**values: Any) -> Reader:
    return Reader(
        family="transformer",
        find_sites=find_dit_sites,
        in_channels=dit_in_channels,
        random_inputs=random_dit_inputs,
        refused_fields={
            "motion_modules": "motion modules go between the layers of a UNet's blocks",
            "residual_blocks": "temporal residual blocks go after those of a UNet",
            "extra_in_channels": "extra input channels go beside the first convolution of a UNet",
        },
        instead="'latte', 'lean' or 'spacetime-dit'",
        **values,
    )


_DIT_GIVEN = ("self", "hidden_states", "timestep", "return_dict")
DITS: tuple[Reader, ...] = (
    _transformers(
        classes={
            "DiTTransformer2DModel": DiTTransformer2DModel,
            "PixArtTransformer2DModel": PixArtTransformer2DModel,
            "SD3Transformer2DModel": SD3Transformer2DModel,
        },
        call=call_dit,
        given=_DIT_GIVEN,
    ),
    _transformers(
        classes={"FluxTransformer2DModel": FluxTransformer2DModel},
        call=call_flux,
        given=(*_DIT_GIVEN, "img_ids", "txt_ids"),
    ),
)
READERS: tuple[Reader, ...] = (UNETS, *DITS)
IMAGE_MODEL_CLASSES: dict[str, type[nn.Module]] = {
    name: image_model_class for reader in READERS for name, image_model_class in reader.classes.items()
}


def reader_of(image_model: nn.Module) -> Reader:
    """The reader of `image_model`; `InputError` unless it is of a class that can be inflated."""
    for reader in READERS:
        if isinstance(image_model, tuple(reader.classes.values())):
            return reader
    raise InputError(
        f"cannot inflate {a(type(image_model).__name__)}: "
        f"the image model must be one of diffusers' {', '.join(IMAGE_MODEL_CLASSES)}"
    )


def find_sites(image_model: nn.Module, scheme: str | Scheme = "make-a-video") -> tuple[Site, ...]:
    """The sites of `image_model` under `scheme`, in the order of the module tree.

    Raises:
        InputError: the model's class is unknown, or the scheme does not apply to it.
    """
    reader, scheme = reader_of(image_model), resolve_scheme(scheme)
    start = f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}"
    plain = {"patch_frames": 1}
    for name, reason in reader.refused_fields.items():
        if getattr(scheme, name) not in (False, plain.get(name, False)):
            raise InputError(f"{start}: {reason}; choose {reader.instead}")
    sites = reader.find_sites(image_model, scheme)
    if not sites:
        if scheme.attention or scheme.convolution:
            raise InputError(
                f"{start}: it adds only temporal attention and the model has no spatial attention; "
                "choose a scheme with temporal convolutions"
            )
        raise InputError(
            f"{start}: it works on the self-attention of transformer blocks and the model has none; "
            "choose a scheme with temporal convolutions or motion modules"
        )
    return tuple(sites)


def call_image_model(image_model: nn.Module, sample: Tensor, timestep: Any, **arguments: Any) -> Any:
    """The image model's own answer for pictures (B, C, H, W); its `sample` is (B, C', H', W')."""
    return reader_of(image_model).call(image_model, sample, timestep, arguments)


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
    return reader_of(image_model).random_inputs(image_model, batch, size, generator)
