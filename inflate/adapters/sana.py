"""SANA and SANA-Sprint (arXiv:2410.10629, 2503.09641): linear attention, and a convolution in every feed-forward."""

from typing import Any

from diffusers import SanaTransformer2DModel
from torch import Tensor, nn

from inflate.adapters.adapter import with_guidance
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer


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
    text_tokens = 300

    def time_embeddings(self, image_model: nn.Module) -> list[str]:
        """Before Sprint's guidance scale is added."""
        config: Any = image_model.config
        return ["time_embed.timestep_embedder" if config.guidance_embeds else "time_embed.emb"]

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        return super().call(image_model, pictures, timestep, with_guidance(image_model, arguments, pictures, 0.45))

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text, and for Sprint a guidance scale."""
        told = {"encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(image_model.config.caption_channels))}
        if image_model.config.guidance_embeds:
            told["guidance"] = source.integers(1, 8).to(source.dtype) / 10
        return told
