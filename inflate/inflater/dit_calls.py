"""Calling diffusers' image transformers with pictures (N, C, H, W), the same way for all of them."""

from typing import Any

import torch
from diffusers import DiTTransformer2DModel, FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError

FLUX_PATCH = 2  # FLUX takes patches of its latents as tokens; its pipeline packs them, and its config does not say so
ROTARY_AXES = 3  # of a FLUX token's place: not used, row, column


def dit_in_channels(image_model: nn.Module) -> int:
    """Channels of a picture that the image model takes."""
    config: Any = image_model.config
    channels = int(config.in_channels)
    return channels // FLUX_PATCH**2 if isinstance(image_model, FluxTransformer2DModel) else channels


def patch_size_of(image_model: nn.Module) -> int:
    """Height and width, in latent cells, of the patch that is one token."""
    config: Any = image_model.config
    return FLUX_PATCH if isinstance(image_model, FluxTransformer2DModel) else int(config.patch_size)


def call_dit(image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
    """The answer of a `DiTTransformer2DModel`, a `PixArtTransformer2DModel` or an `SD3Transformer2DModel`.

    Raises:
        InputError: a size or a missing argument that the model cannot take.
    """
    _check_size(image_model, pictures)
    if isinstance(image_model, DiTTransformer2DModel):
        _require(image_model, arguments, "class_labels")
    elif isinstance(image_model, SD3Transformer2DModel):
        _require(image_model, arguments, "encoder_hidden_states", "pooled_projections")
    else:
        _require(image_model, arguments, "encoder_hidden_states")
        if getattr(image_model, "use_additional_conditions", False):
            _require(image_model, arguments, "added_cond_kwargs")
    return image_model(hidden_states=pictures, timestep=_each(timestep, pictures), **arguments)


def call_flux(image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
    """The answer of a `FluxTransformer2DModel`, its patches packed and unpacked as its pipeline does.

    `timestep` lies between 0 and 1, as FLUX takes it.

    Raises:
        InputError: a size or an argument that the model cannot take, or one that is missing.
    """
    _check_size(image_model, pictures)
    _require(image_model, arguments, "encoder_hidden_states", "pooled_projections")
    config: Any = image_model.config
    arguments = dict(arguments)
    guidance = arguments.pop("guidance", None)
    if (guidance is not None) != bool(config.guidance_embeds):
        takes = (
            "needs guidance: pass guidance=3.5, say" if config.guidance_embeds else "takes no guidance: leave it out"
        )
        raise InputError(f"this FluxTransformer2DModel {takes}")
    if guidance is not None:
        arguments["guidance"] = _each(guidance, pictures)
    height, width = (size // FLUX_PATCH for size in pictures.shape[-2:])
    text: Tensor = arguments["encoder_hidden_states"]
    output = image_model(
        hidden_states=rearrange(pictures, "n c (h p) (w q) -> n (h w) (c p q)", p=FLUX_PATCH, q=FLUX_PATCH),
        timestep=_each(timestep, pictures),
        img_ids=_places(height, width, pictures.device),
        txt_ids=torch.zeros(text.shape[1], ROTARY_AXES, device=pictures.device),
        **arguments,
    )
    answer = rearrange(output.sample, "n (h w) (c p q) -> n c (h p) (w q)", h=height, p=FLUX_PATCH, q=FLUX_PATCH)
    return Transformer2DModelOutput(sample=answer)


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of each token, `(height * width, 3)`; float32 holds them exactly, as bfloat16 does only to 256."""
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, device=device, dtype=torch.float32).expand(height, width)
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).flatten(0, 1)


def _each(value: Any, pictures: Tensor) -> Tensor:
    """A number for each picture: `value` is one, or as many as there are pictures."""
    values = torch.as_tensor(value, device=pictures.device).flatten()
    return values.expand(pictures.shape[0]) if values.numel() == 1 else values


def _require(image_model: nn.Module, arguments: dict[str, Any], *names: str) -> None:
    for name in names:
        if arguments.get(name) is None:
            raise InputError(f"{type(image_model).__name__} cannot do without the argument {name!r}; pass it")


def _check_size(image_model: nn.Module, pictures: Tensor) -> None:
    """Sizes that diffusers would crop without a word, or fail at with an obscure one."""
    config: Any = image_model.config
    height, width = pictures.shape[-2:]
    patch = patch_size_of(image_model)
    class_name = type(image_model).__name__
    if height % patch or width % patch:
        raise InputError(f"{class_name} needs a height and a width divisible by {patch}, got {height} x {width}")
    if isinstance(image_model, DiTTransformer2DModel) and height != width:
        raise InputError(f"{class_name} takes square pictures only, got {height} x {width}")
    largest = patch * int(config.get("pos_embed_max_size") or 0)
    if largest and max(height, width) > largest:
        raise InputError(f"{class_name} has positions for {largest} x {largest} at most, got {height} x {width}")
