"""FLUX.2: one modulation for all blocks of a kind; its latents come in patches of two by two already."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from inflate.adapters.flux import row_and_column
from inflate.adapters.transformer import Blocks, Transformer

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
        Blocks("single_transformer_blocks", condition=_three_twice, shared_condition=True),
    )
    embedding = "x_embedder"
    others_at = ("single_transformer_blocks",)
    time_embedding = "time_guidance_embed"
    packed = True
    usual_patch = 1
    texts = (("encoder_hidden_states", "joint_attention_dim"),)
    fractions = True
    text_tokens = 512

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Places of tokens."""
        num_text = arguments["encoder_hidden_states"].shape[1]
        in_text = torch.zeros(num_text, ROTARY_AXES, device=pictures.device)
        in_text[:, -1] = torch.arange(num_text, device=pictures.device)
        height, width = pictures.shape[-2:]
        return {"img_ids": row_and_column(height, width, ROTARY_AXES, pictures.device), "txt_ids": in_text}
