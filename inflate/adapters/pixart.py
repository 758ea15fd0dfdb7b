"""PixArt-alpha and -sigma (arXiv:2310.00426, 2403.04692): one projection of the condition for all blocks."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.transformer import Blocks, Transformer

PIXELS_PER_CELL = 8  # of the latents; PixArt is told the size of its pictures in pixels


class PixArt(Transformer):
    """`PixArtTransformer2DModel`; alpha is told the size of its pictures, sigma is not."""

    image_model_class = PixArtTransformer2DModel
    blocks = (Blocks("transformer_blocks", ("attn1",), ("attn2",), condition="timestep", shared_condition=True),)
    joint = False
    time_embedding = "adaln_single.emb"

    def text_tokens_of(self, config: Mapping[str, Any]) -> int:
        """Sigma's prompts are longer."""
        return 300 if config.get("use_additional_conditions") is False else 120

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """See `Transformer`."""
        sized = getattr(image_model, "use_additional_conditions", False)
        return ("encoder_hidden_states", "added_cond_kwargs") if sized else ("encoder_hidden_states",)

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text, and for alpha a size."""
        width = int(image_model.config.caption_channels or image_model.config.cross_attention_dim)
        told: dict[str, Any] = {"encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, width)}
        if image_model.use_additional_conditions:
            cell = torch.tensor(size, device=source.device) * PIXELS_PER_CELL
            told["added_cond_kwargs"] = {
                "resolution": (cell.expand(source.batch, 2) * source.integers(1, 4, 1)).to(source.dtype),
                "aspect_ratio": source.integers(1, 4, 1).to(source.dtype) / 2,
            }
        return told
