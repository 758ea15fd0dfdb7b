"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): text and picture attend together; 3.5's picture once more alone."""

from typing import Any

from diffusers import SD3Transformer2DModel

from inflate.adapters.transformer import Blocks, Transformer


class SD3(Transformer):
    """`SD3Transformer2DModel`."""

    image_model_class = SD3Transformer2DModel
    blocks = (Blocks("transformer_blocks", ("attn", "attn2")),)
    texts = (("encoder_hidden_states", "joint_attention_dim"),)
    pooled = (("pooled_projections", "pooled_projection_dim"),)
    text_tokens = 77 + 256  # CLIP's and T5's

    def largest_size(self, config: Any) -> int:
        """Positions are a table."""
        return self.patch_size(config) * int(config.pos_embed_max_size or 0)
