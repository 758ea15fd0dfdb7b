"""SANA and SANA-Sprint (arXiv:2410.10629, 2503.09641): linear attention, and a convolution in every feed-forward."""

from typing import Any

from diffusers import SanaTransformer2DModel
from torch import nn

from inflate.adapters.transformer import Blocks, Transformer


class Sana(Transformer):
    """`SanaTransformer2DModel`; Sprint is told a guidance scale, a tenth of what its pipeline is given."""

    image_model_class = SanaTransformer2DModel
    instead = "'sana-video', 'latte', 'lean' or 'spacetime-dit'"
    blocks = (
        Blocks(
            "transformer_blocks",
            *(("attn1",), ("attn2",), ("ff.conv_depth",)),
            condition="timestep",
            shared_condition=True,
        ),
    )
    joint = False
    embedding = "patch_embed"
    usual_patch = 1
    texts = (("encoder_hidden_states", "caption_channels"),)
    text_tokens = 300
    usual_guidance = 0.45

    def time_embeddings(self, image_model: nn.Module) -> list[str]:
        """Before Sprint's guidance scale is added."""
        config: Any = image_model.config
        return ["time_embed.timestep_embedder" if config.guidance_embeds else "time_embed.emb"]
