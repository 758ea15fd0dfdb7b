"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): text and picture attend together; 3.5's picture once more alone."""

from typing import Any

from diffusers import SD3Transformer2DModel

from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer


class SD3(Transformer):
    """`SD3Transformer2DModel`."""

    image_model_class = SD3Transformer2DModel
    blocks = (Blocks("transformer_blocks", ("attn", "attn2")),)
    conditions = ("encoder_hidden_states", "pooled_projections")
    text_tokens = 77 + 256  # CLIP's and T5's

    def largest_size(self, config: Any) -> int:
        """Positions are a table."""
        return self.patch_size(config) * int(config.pos_embed_max_size or 0)

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text and its pooled embedding."""
        return {
            "encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(image_model.config.joint_attention_dim)),
            "pooled_projections": source.normal(int(image_model.config.pooled_projection_dim)),
        }
