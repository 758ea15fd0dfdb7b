"""FLUX.1: patches packed and unpacked as its pipeline does, times between 0 and 1, a guidance scale as an input."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from inflate.adapters.adapter import each, require, with_guidance
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer

FLUX_PATCH = 2  # FLUX takes patches of its latents as tokens; its pipeline packs them, and its config does not say so
ROTARY_AXES = 3  # of a token's place: not used, row, column


class Flux(Transformer):
    """`FluxTransformer2DModel`."""

    image_model_class = FluxTransformer2DModel
    given = ("self", "hidden_states", "timestep", "return_dict", "img_ids", "txt_ids")
    blocks = (Blocks("transformer_blocks"), Blocks("single_transformer_blocks"))
    embedding = "x_embedder"
    features = "c p q"
    conditions = ("encoder_hidden_states", "pooled_projections")
    native_cells = 128
    fractions = True

    def channels(self, config: Mapping[str, Any]) -> int:
        """Of its latents before they are packed."""
        return super().channels(config) // FLUX_PATCH**2

    def patch_size(self, config: Mapping[str, Any]) -> int:
        """Not in the config."""
        return FLUX_PATCH

    def text_tokens_of(self, config: Mapping[str, Any]) -> int:
        """Those of dev, or of schnell."""
        return 512 if config.get("guidance_embeds") else 256

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        height, width = pictures.shape[-2:]
        self.check_size(image_model, height, width)
        require(image_model, arguments, self.conditions)
        text: Tensor = arguments["encoder_hidden_states"]
        output = image_model(
            hidden_states=self.patch(pictures, image_model),
            timestep=each(timestep, pictures),
            img_ids=row_and_column(height // FLUX_PATCH, width // FLUX_PATCH, ROTARY_AXES, pictures.device),
            txt_ids=torch.zeros(text.shape[1], ROTARY_AXES, device=pictures.device),
            **with_guidance(image_model, arguments, pictures),
        )
        return Transformer2DModelOutput(sample=self.unpatch(output.sample, image_model, (height, width)))

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text, its pooled embedding, and for dev a guidance scale."""
        told = {
            "encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(image_model.config.joint_attention_dim)),
            "pooled_projections": source.normal(int(image_model.config.pooled_projection_dim)),
        }
        if image_model.config.guidance_embeds:
            told["guidance"] = source.integers(1, 8).to(source.dtype)
        return told


def row_and_column(height: int, width: int, num_axes: int, device: torch.device) -> Tensor:
    """Row and column of each token in the second and third of `num_axes`, `(height * width, num_axes)`.

    float32 holds them exactly, as bfloat16 does only to 256.
    """
    found = torch.zeros(height, width, num_axes, device=device)
    found[..., 1] = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    found[..., 2] = torch.arange(width, device=device, dtype=torch.float32)
    return found.flatten(0, 1)
