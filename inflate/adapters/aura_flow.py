"""AuraFlow: double blocks, then single ones with registers, text and picture in one sequence."""

import math
from typing import Any

from diffusers import AuraFlowTransformer2DModel

from inflate.adapters.transformer import Blocks, Transformer


class AuraFlow(Transformer):
    """`AuraFlowTransformer2DModel`."""

    image_model_class = AuraFlowTransformer2DModel
    blocks = (Blocks("joint_transformer_blocks"), Blocks("single_transformer_blocks"))
    others_at = ("single_transformer_blocks",)
    time_embedding = "time_step_proj"
    texts = (("encoder_hidden_states", "joint_attention_dim"),)
    fractions = True
    text_tokens = 256

    def largest_size(self, config: Any) -> int:
        """Positions are a square table."""
        return self.patch_size(config) * math.isqrt(int(config.pos_embed_max_size))
