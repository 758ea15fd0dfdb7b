"""Chroma: FLUX without pooled text and guidance, its modulations made by one small network for all blocks."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ChromaTransformer2DModel
from torch import Tensor, nn

from inflate.adapters.flux import FLUX_PATCH, Flux
from inflate.adapters.transformer import Blocks


def _of_picture(block: nn.Module, arguments: dict[str, Any]) -> Tensor:
    """A double block is told twelve modulations, the picture's first."""
    return arguments["temb"][:, :6].flatten(1)


def _three_twice(block: nn.Module, arguments: dict[str, Any]) -> Tensor:
    """A single block's attention and MLP run beside each other, under the same three modulations."""
    return arguments["temb"].flatten(1).repeat(1, 2)


class Chroma(Flux):
    """`ChromaTransformer2DModel`; a mask of its text, (N, tokens), may be given."""

    image_model_class = ChromaTransformer2DModel
    blocks = (
        Blocks("transformer_blocks", condition=_of_picture, shared_condition=True),
        Blocks("single_transformer_blocks", condition=_three_twice, shared_condition=True),
    )
    others_at = ("single_transformer_blocks",)
    time_embedding = "distilled_guidance_layer.in_proj"
    pooled = ()

    @property
    def text_tokens(self) -> int:
        """As its pipeline pads."""
        return 512

    @property
    def condition_dim(self) -> int:
        """Of the network that makes modulations, which is told the time step first."""
        return int(self.config.approximator_hidden_dim)

    def own_arguments(self, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Places of tokens, and a mask of the picture's tokens behind the text's."""
        own, mask = super().own_arguments(pictures, arguments), arguments.get("attention_mask")
        if mask is None:
            return own
        seen = mask.new_ones(len(mask), pictures.shape[-2] * pictures.shape[-1] // FLUX_PATCH**2)
        return {**own, "attention_mask": torch.cat([mask, seen], dim=1)}
