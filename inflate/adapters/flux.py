"""FLUX.1: patches packed and unpacked as its pipeline does, times between 0 and 1, a guidance scale as an input."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from inflate.adapters.transformer import Blocks, Transformer

FLUX_PATCH = 2  # FLUX takes patches of its latents as tokens; its pipeline packs them, and its config does not say so
ROTARY_AXES = 3  # of a token's place: not used, row, column


class Flux(Transformer):
    """`FluxTransformer2DModel`."""

    image_model_class = FluxTransformer2DModel
    given = (*Transformer.given, "img_ids", "txt_ids")
    blocks = (Blocks("transformer_blocks"), Blocks("single_transformer_blocks"))
    embedding = "x_embedder"
    features = "c p q"
    packed = True
    fractions = True
    texts = (("encoder_hidden_states", "joint_attention_dim"),)
    pooled = (("pooled_projections", "pooled_projection_dim"),)
    native_cells = 128

    def channels(self, config: Mapping[str, Any]) -> int:
        """Of its latents before they are packed."""
        return super().channels(config) // FLUX_PATCH**2

    def patch_size(self, config: Mapping[str, Any]) -> int:
        """Not in the config."""
        return FLUX_PATCH

    def text_tokens_of(self, config: Mapping[str, Any]) -> int:
        """Those of dev, or of schnell."""
        return 512 if config.get("guidance_embeds") else 256

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Places of tokens."""
        height, width = (size // FLUX_PATCH for size in pictures.shape[-2:])
        num_text = arguments["encoder_hidden_states"].shape[1]
        return {
            "img_ids": row_and_column(height, width, ROTARY_AXES, pictures.device),
            "txt_ids": torch.zeros(num_text, ROTARY_AXES, device=pictures.device),
        }


def row_and_column(height: int, width: int, num_axes: int, device: torch.device) -> Tensor:
    """Row and column of each token in the second and third of `num_axes`, `(height * width, num_axes)`.

    float32 holds them exactly, as bfloat16 does only to 256.
    """
    found = torch.zeros(height, width, num_axes, device=device)
    found[..., 1] = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    found[..., 2] = torch.arange(width, device=device, dtype=torch.float32)
    return found.flatten(0, 1)
