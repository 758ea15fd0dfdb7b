"""The bundled decoder's UNet without its class embedding: cross-attention alone, as Stable Diffusion has it."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from inflate.errors import InputError


def without_class_embedding(unet: UNet2DConditionModel, embeds: Tensor) -> UNet2DConditionModel:
    """The same network, told nothing by ``class_labels``: what it would be told on average becomes part of a bias.

    The embedding of the class is added to that of the timestep, so the mean of it over ``embeds`` goes into the bias of
    the time embedding's last layer. For a picture whose class embedding is that mean, nothing changes.

    Args:
        unet: with ``class_embed_type = "projection"``.
        embeds: (N, D) of which the mean is taken.

    Raises:
        InputError: a network without such an embedding.
    """
    network: Any = unet
    config = dict(network.config)
    if config.get("class_embed_type") != "projection":
        raise InputError(f"The UNet's class_embed_type is {config.get('class_embed_type')!r}, not 'projection'.")
    for name in ("class_embed_type", "projection_class_embeddings_input_dim"):
        config[name] = None
    made: Any = UNet2DConditionModel.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("class_embedding.")}
    with torch.no_grad():
        mean = network.class_embedding(embeds.to(network.dtype)).mean(dim=0)
    weights["time_embedding.linear_2.bias"] = weights["time_embedding.linear_2.bias"] + mean
    made.load_state_dict(weights)
    return made
