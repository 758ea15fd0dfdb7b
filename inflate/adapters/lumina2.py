"""Lumina-Image 2.0 (arXiv:2503.21758): text without its padding, then the picture, in one sequence."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import Lumina2Transformer2DModel
from torch import nn

from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.transformer import Blocks, Transformer
from inflate.layers import PictureTokens


class Lumina2(Transformer):
    """`Lumina2Transformer2DModel`."""

    image_model_class = Lumina2Transformer2DModel
    blocks = (Blocks("noise_refiner"), Blocks("layers"))
    embedding = "x_embedder"
    last = "norm_out.linear_2"
    others_at = ("layers", "norm_out.linear_2")
    time_embedding = "time_caption_embed.timestep_embedder"
    texts = (("encoder_hidden_states", "cap_feat_dim"),)
    fractions = True
    text_tokens = 256
    without_memory = False  # it reads the lengths of its texts off their masks

    def num_heads(self, config: Any) -> tuple[int, int]:
        """See `Transformer`."""
        return int(config.num_attention_heads), int(config.hidden_size) // int(config.num_attention_heads)

    def condition_dim(self, config: Any) -> int:
        """As diffusers' Lumina2CombinedTimestepCaptionEmbedding has it."""
        return min(int(config.hidden_size), 1024)

    def largest_size(self, config: Any) -> int:
        """Rotary positions are a table."""
        return self.patch_size(config) * min(config.axes_lens[1:])

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """Behind as many text tokens as each picture's mask counts."""
        mask = arguments.get("encoder_attention_mask")
        if mask is None:
            return None
        tokens = torch.arange(self.num_tokens(image_model, size), device=mask.device)
        return PictureTokens(num_pictures, mask.sum(1, dtype=torch.long)[:, None] + tokens)

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """See `Transformer`."""
        return ("encoder_hidden_states", "encoder_attention_mask")

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """Texts of different lengths."""
        lengths = source.integers(1, NUM_TEXT_TOKENS + 1, 1)
        mask = torch.arange(NUM_TEXT_TOKENS, device=source.device) < lengths
        return {**super().random_conditions(image_model, source, size), "encoder_attention_mask": mask}
