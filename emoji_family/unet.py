"""The bundled decoder's weights in a UNet of Stable Diffusion's shape, as a start for training.

Stable Diffusion's UNet is told a caption by cross-attention alone, adds the timestep before a residual block's second
norm (``resnet_time_scale_shift = "default"``) and embeds it in four times its first width. diffusers'
``UNetMotionModel``, which AnimateDiff needs, knows no other. The bundled decoder is told an image embedding with the
timestep too, which scales and shifts after that norm. All that has a place is kept; the rest is to be learned anew.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from inflate.errors import InputError

_OURS = {
    "class_embed_type": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
}
_SMALLEST_WEIGHT = 0.3  # of a norm, when it is divided by


@torch.no_grad()
def as_stable_diffusion(unet: UNet2DConditionModel, noisy: Tensor, timestep: Tensor, embeds: Tensor) -> Any:
    """A UNet of Stable Diffusion's shape that starts from the weights of ``unet``.

    The mean class embedding goes into the bias of the time embedding, which is widened. Of a block's scale and shift
    after the norm, ``n (1 + s(t)) + b(t)``, the means over ``timestep`` go into the norm's own weight and bias. What is
    left of the shift becomes what is added before the norm, divided by what the norm multiplies by; what is left of the
    scale is dropped.

    Args:
        unet: with ``class_embed_type = "projection"`` and ``resnet_time_scale_shift = "scale_shift"``.
        noisy: (N, c, h, w) such as it will see, for the norms' deviations.
        timestep: (N,) of those, over which means are taken.
        embeds: (N, D) image embeddings as it knows them.

    Raises:
        InputError: a network of another shape.
    """
    network: Any = unet
    config = dict(network.config)
    found = config.get("class_embed_type"), config.get("resnet_time_scale_shift")
    if found != ("projection", "scale_shift"):
        raise InputError(
            f"The UNet has class_embed_type {found[0]!r} and resnet_time_scale_shift {found[1]!r}; "
            "the bundled decoder's are 'projection' and 'scale_shift'."
        )
    made: Any = UNet2DConditionModel.from_config({k: v for k, v in (config | _OURS).items() if not k.startswith("_")})
    deviations = _deviations(network, noisy, timestep, embeds)
    fresh, weights = made.state_dict(), {}
    for name, value in network.state_dict().items():
        if name in fresh and fresh[name].shape == value.shape:
            weights[name] = value
    mean_class = network.class_embedding(embeds).mean(dim=0)
    weights |= _widened(network, fresh, mean_class)
    told = nn.functional.silu(network.time_embedding(network.time_proj(timestep)) + mean_class)
    for name, block in network.named_modules():
        if getattr(block, "time_embedding_norm", None) == "scale_shift":
            weights |= _block(name, block, told, deviations[name], fresh)
    made.load_state_dict(weights)
    return made


def _widened(network: Any, fresh: dict[str, Tensor], mean_class: Tensor) -> dict[str, Tensor]:
    """The time embedding in its new width; the new part of it is not read at first."""
    old, new = network.time_embedding.state_dict(), {}
    width = len(mean_class)
    for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"):
        new[name] = fresh[f"time_embedding.{name}"].clone()
        new[name][:width] = 0
        new[name][tuple(slice(0, length) for length in old[name].shape)] = old[name]
    new["linear_2.bias"][:width] += mean_class
    return {f"time_embedding.{name}": value for name, value in new.items()}


def _block(name: str, block: Any, told: Tensor, deviation: Tensor, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norm and projection of one residual block; ``told`` is what the projection reads at each timestep, (N, W)."""
    scale_weight, shift_weight = block.time_emb_proj.weight.chunk(2)
    scale, shift = (part.mean(dim=0) for part in block.time_emb_proj(told).chunk(2, dim=1))
    weight = block.norm2.weight * (1 + scale)
    bias = block.norm2.bias * (1 + scale) + shift
    size = weight.abs().clamp_min(_SMALLEST_WEIGHT)
    divisor = torch.where(weight < 0, -size, size) / deviation
    left = (block.norm2.bias[:, None] * scale_weight + shift_weight) / divisor[:, None]
    projection = torch.zeros_like(fresh[f"{name}.time_emb_proj.weight"])
    projection[:, : left.shape[1]] = left
    return {
        f"{name}.norm2.weight": weight,
        f"{name}.norm2.bias": bias,
        f"{name}.time_emb_proj.weight": projection,
        f"{name}.time_emb_proj.bias": -(left @ told.mean(dim=0)),
    }


def _deviations(network: Any, noisy: Tensor, timestep: Tensor, embeds: Tensor) -> dict[str, Tensor]:
    """By residual block, the deviation (C,) that its second norm divides each channel by, on average."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(norm: Any, inputs: tuple[Tensor, ...]) -> None:
            groups = inputs[0].float().unflatten(1, (norm.num_groups, -1)).flatten(2)
            found[name] = groups.std(dim=2).mean(dim=0).repeat_interleave(inputs[0].shape[1] // norm.num_groups)

        return hook

    hooks = [
        block.norm2.register_forward_pre_hook(keep(name))
        for name, block in network.named_modules()
        if getattr(block, "time_embedding_norm", None) == "scale_shift"
    ]
    try:
        network(noisy, timestep, encoder_hidden_states=embeds[:, None], class_labels=embeds)
    finally:
        for hook in hooks:
            hook.remove()
    return found
