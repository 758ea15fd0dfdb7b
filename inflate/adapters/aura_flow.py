"""AuraFlow: double blocks, then single ones with registers, text and picture in one sequence."""

import math
from collections.abc import Mapping
from typing import Any

from diffusers import AuraFlowTransformer2DModel
from torch import nn

from inflate.adapters.adapter import PictureTokens
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer


class AuraFlow(Transformer):
    """`AuraFlowTransformer2DModel`."""

    image_model_class = AuraFlowTransformer2DModel
    blocks = (Blocks("joint_transformer_blocks"), Blocks("single_transformer_blocks", with_others=True))
    time_embedding = "time_step_proj"
    fractions = True
    text_tokens = 256

    def largest_size(self, config: Any) -> int:
        """Positions are a square table."""
        return self.patch_size(config) * math.isqrt(int(config.pos_embed_max_size))

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """Behind registers and text."""
        return self.last_tokens(image_model, size, num_pictures)

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text."""
        return {"encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(image_model.config.joint_attention_dim))}
