"""FLUX.2: one modulation for all blocks of a kind; its latents come in patches of two by two already."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from inflate.adapters.adapter import PictureTokens, each, require, with_guidance
from inflate.adapters.flux import row_and_column
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer

ROTARY_AXES = 4  # of a token's place: not used, row, column, place in the text


def _three_twice(block: nn.Module, arguments: dict[str, Any]) -> Tensor:
    """A single block's attention and MLP run beside each other, under the same three modulations."""
    return arguments["temb_mod"].repeat(1, 2)


class Flux2(Transformer):
    """`Flux2Transformer2DModel`, dev and klein, without pictures to look at."""

    image_model_class = Flux2Transformer2DModel
    given = (
        *(*Transformer.given, "img_ids", "txt_ids"),
        *("kv_cache", "kv_cache_mode", "num_ref_tokens", "ref_fixed_timestep"),
    )
    blocks = (
        Blocks("transformer_blocks", condition="temb_mod_img", shared_condition=True),
        Blocks("single_transformer_blocks", condition=_three_twice, shared_condition=True, with_others=True),
    )
    embedding = "x_embedder"
    time_embedding = "time_guidance_embed"
    usual_patch = 1
    fractions = True
    text_tokens = 512

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """Behind the text."""
        return self.last_tokens(image_model, size, num_pictures)

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        height, width = pictures.shape[-2:]
        self.check_size(image_model, height, width)
        require(image_model, arguments, self.conditions)
        text: Tensor = arguments["encoder_hidden_states"]
        in_text = torch.zeros(text.shape[1], ROTARY_AXES, device=pictures.device)
        in_text[:, -1] = torch.arange(text.shape[1], device=pictures.device)
        output = image_model(
            hidden_states=self.patch(pictures, image_model),
            timestep=each(timestep, pictures),
            img_ids=row_and_column(height, width, ROTARY_AXES, pictures.device),
            txt_ids=in_text,
            **with_guidance(image_model, arguments, pictures),
        )
        return Transformer2DModelOutput(sample=self.unpatch(output.sample, image_model, (height, width)))

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text, and for dev a guidance scale."""
        config = image_model.config
        told = {"encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(config.joint_attention_dim))}
        if config.guidance_embeds:
            told["guidance"] = source.integers(1, 8).to(source.dtype)
        return told
