"""Random valid inputs for any supported image transformer, read off its config."""

from typing import Any

import torch
from diffusers import DiTTransformer2DModel, FluxTransformer2DModel, SD3Transformer2DModel
from torch import nn

from inflate.inflater.dit_calls import dit_in_channels
from inflate.inflater.inputs import NUM_TEXT_TOKENS, RandomSource, sample_size_of

NUM_TIMESTEPS = 1000
PIXELS_PER_CELL = 8  # of the latents; PixArt is told the size of its pictures in pixels


def random_dit_inputs(
    image_model: nn.Module,
    batch: int,
    size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """All arguments `call_image_model` needs for `batch` pictures, each with its own random values.

    Args:
        image_model: a DiT, PixArt, SD3 or FLUX transformer, on any device; on the meta device the inputs are too.
        batch: number of pictures; every tensor has this first size.
        size: height and width of the sample; the config's `sample_size` by default.
        generator: a CPU generator.
    """
    config: Any = image_model.config
    source = RandomSource(image_model, batch, generator)
    height, width = size or sample_size_of(image_model)
    inputs: dict[str, Any] = {
        "sample": source.normal(dit_in_channels(image_model), height, width),
        "timestep": source.integers(1, NUM_TIMESTEPS),
    }
    if isinstance(image_model, DiTTransformer2DModel):
        inputs["class_labels"] = source.integers(0, int(config.num_embeds_ada_norm))
    elif isinstance(image_model, SD3Transformer2DModel | FluxTransformer2DModel):
        inputs["encoder_hidden_states"] = source.normal(NUM_TEXT_TOKENS, int(config.joint_attention_dim))
        inputs["pooled_projections"] = source.normal(int(config.pooled_projection_dim))
        if isinstance(image_model, FluxTransformer2DModel):
            inputs["timestep"] = inputs["timestep"].to(source.dtype) / NUM_TIMESTEPS
            if config.guidance_embeds:
                inputs["guidance"] = source.integers(1, 8).to(source.dtype)
    else:
        inputs["encoder_hidden_states"] = source.normal(
            NUM_TEXT_TOKENS, int(config.caption_channels or config.cross_attention_dim)
        )
        if getattr(image_model, "use_additional_conditions", False):
            cell = torch.tensor([height, width], device=source.device) * PIXELS_PER_CELL
            inputs["added_cond_kwargs"] = {
                "resolution": (cell.expand(batch, 2) * source.integers(1, 4, 1)).to(source.dtype),
                "aspect_ratio": source.integers(1, 4, 1).to(source.dtype) / 2,
            }
    return inputs
