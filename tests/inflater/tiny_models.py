"""Small image models with the structure of the ones people bring: same block types and conditions, few channels."""

from typing import Any

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    ChromaTransformer2DModel,
    DiTTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HiDreamImageTransformer2DModel,
    HunyuanDiT2DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    ZImageTransformer2DModel,
)

SMALL: dict[str, Any] = {"sample_size": 8, "norm_num_groups": 4}
CROSS: dict[str, Any] = {
    **SMALL,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
}
SIMPLE_CROSS: dict[str, Any] = {
    **SMALL,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 12,
    "resnet_time_scale_shift": "scale_shift",
}

DIT: dict[str, Any] = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
}
PIXART: dict[str, Any] = {
    **DIT,
    "num_attention_heads": 3,  # the embedding of sizes takes a third of the width each
    "out_channels": 8,
    "cross_attention_dim": 24,
    "caption_channels": 12,
}
SD3: dict[str, Any] = {
    **DIT,
    "in_channels": 16,
    "joint_attention_dim": 12,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 6,
}
FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "axes_dims_rope": (2, 4, 2),
}

SANA: dict[str, Any] = {
    **DIT,
    "out_channels": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 12,
}
QWEN_IMAGE: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "axes_dims_rope": (2, 4, 2),
}
LUMINA2: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "hidden_size": 24,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "axes_dim_rope": (4, 4, 4),
    "axes_lens": (16, 8, 8),
    "cap_feat_dim": 12,
}
Z_IMAGE: dict[str, Any] = {
    "in_channels": 4,
    "dim": 24,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 12,
    "axes_dims": [4, 4, 4],
    "axes_lens": [96, 16, 16],
}
FLUX2: dict[str, Any] = {
    "in_channels": 8,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "timestep_guidance_channels": 16,
    "axes_dims_rope": (2, 2, 2, 2),
}
AURA_FLOW: dict[str, Any] = {
    "sample_size": 8,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "caption_projection_dim": 16,
    "pos_embed_max_size": 64,
}
HUNYUAN_DIT: dict[str, Any] = {
    **DIT,
    "patch_size": 2,
    "num_layers": 4,
    "hidden_size": 16,
    "cross_attention_dim": 12,
    "cross_attention_dim_t5": 16,
    "pooled_projection_dim": 10,
    "text_len": 5,
    "text_len_t5": 6,
}
HIDREAM: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "caption_channels": [12, 14],
    "text_emb_dim": 10,
    "axes_dims_rope": (4, 2, 2),
    "max_resolution": (8, 8),
    "llama_layers": [0, 1, 1],
}
CHROMA: dict[str, Any] = {
    **{name: value for name, value in FLUX.items() if name != "pooled_projection_dim"},
    "approximator_num_channels": 16,
    "approximator_hidden_dim": 24,
    "approximator_layers": 1,
}

CONFIGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "sd15": (UNet2DConditionModel, CROSS),
    "sd21-unclip": (
        UNet2DConditionModel,
        {
            **CROSS,
            "attention_head_dim": (1, 2),
            "use_linear_projection": True,
            "upcast_attention": True,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 10,
        },
    ),
    "sd21": (
        UNet2DConditionModel,
        {**CROSS, "attention_head_dim": (1, 2), "use_linear_projection": True, "upcast_attention": True},
    ),
    "sd-x4-upscaler": (
        UNet2DConditionModel,
        {**CROSS, "in_channels": 7, "num_class_embeds": 1000, "only_cross_attention": (True, False)},
    ),
    "inpainting": (UNet2DConditionModel, {**CROSS, "in_channels": 9}),
    "sdxl": (
        UNet2DConditionModel,
        {
            **CROSS,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 34,
        },
    ),
    "kolors": (
        UNet2DConditionModel,
        {
            **CROSS,
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 34,
            "encoder_hid_dim": 10,
            "encoder_hid_dim_type": "text_proj",
        },
    ),
    "lcm": (UNet2DConditionModel, {**CROSS, "time_cond_proj_dim": 6}),
    "karlo-decoder": (
        UNet2DConditionModel,
        {**SIMPLE_CROSS, "in_channels": 3, "out_channels": 6, "class_embed_type": "identity"},
    ),
    "kandinsky22": (
        UNet2DConditionModel,
        {
            **SIMPLE_CROSS,
            "out_channels": 8,
            "addition_embed_type": "image",
            "encoder_hid_dim": 10,
            "encoder_hid_dim_type": "image_proj",
        },
    ),
    "kandinsky21": (
        UNet2DConditionModel,
        {
            **SIMPLE_CROSS,
            "addition_embed_type": "text_image",
            "encoder_hid_dim": 10,
            "encoder_hid_dim_type": "text_image_proj",
        },
    ),
    "deepfloyd": (
        UNet2DConditionModel,
        {
            **SIMPLE_CROSS,
            "act_fn": "gelu",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2,
            "encoder_hid_dim": 10,
            "cross_attention_dim": 32,
            "cross_attention_norm": "group_norm",
        },
    ),
    "deepfloyd-ii": (
        UNet2DConditionModel,
        {
            **SIMPLE_CROSS,
            "in_channels": 6,
            "out_channels": 6,
            "act_fn": "gelu",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2,
            "class_embed_type": "timestep",
            "encoder_hid_dim": 10,
            "encoder_hid_dim_type": "text_proj",
            "cross_attention_dim": 32,
            "cross_attention_norm": "group_norm",
            "resnet_skip_time_act": True,
            "resnet_out_scale_factor": 1.4142,
            "only_cross_attention": (False, True),
        },
    ),
    "without-mid-block": (UNet2DConditionModel, {**CROSS, "mid_block_type": None}),
    "latent-upscaler": (
        UNet2DConditionModel,
        {
            "sample_size": 16,
            "block_out_channels": (32, 32, 64, 64),
            "norm_num_groups": None,
            "layers_per_block": 2,
            "down_block_types": ("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
            "mid_block_type": None,
            "up_block_types": (*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
            "attention_head_dim": 16,
            "cross_attention_dim": 12,
            "only_cross_attention": (True, True, True, False),
            "resnet_time_scale_shift": "scale_shift",
            "time_embedding_type": "fourier",
            "timestep_post_act": "gelu",
            "conv_in_kernel": 1,
            "conv_out_kernel": 1,
            "act_fn": "gelu",
        },
    ),
    "without-attention": (
        UNet2DConditionModel,
        {
            **CROSS,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "mid_block_type": None,
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
        },
    ),
    "unconditional": (
        UNet2DModel,
        {
            **SMALL,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
        },
    ),
    "karlo-super-resolution": (
        UNet2DModel,
        {
            **SMALL,
            "in_channels": 6,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
            "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
            "add_attention": False,
        },
    ),
    "score-sde": (
        UNet2DModel,
        {
            "sample_size": 8,
            "block_out_channels": (32, 32),
            "layers_per_block": 1,
            "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
            "attention_head_dim": 4,
            "time_embedding_type": "fourier",
            "freq_shift": 0,
        },
    ),
    "dit": (DiTTransformer2DModel, {**DIT, "num_embeds_ada_norm": 20}),
    "dit-learned-sigma": (DiTTransformer2DModel, {**DIT, "out_channels": 8, "num_embeds_ada_norm": 20}),
    "pixart-alpha": (PixArtTransformer2DModel, {**PIXART, "use_additional_conditions": True}),
    "pixart-sigma": (PixArtTransformer2DModel, {**PIXART, "use_additional_conditions": False}),
    "sd3": (SD3Transformer2DModel, SD3),
    "sd35": (SD3Transformer2DModel, {**SD3, "dual_attention_layers": (0,), "qk_norm": "rms_norm"}),
    "flux-dev": (FluxTransformer2DModel, {**FLUX, "guidance_embeds": True}),
    "flux-schnell": (FluxTransformer2DModel, FLUX),
    "sana": (SanaTransformer2DModel, {**SANA, "interpolation_scale": 1}),
    "sana-sprint": (SanaTransformer2DModel, {**SANA, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}),
    "qwen-image": (QwenImageTransformer2DModel, QWEN_IMAGE),
    "lumina2": (Lumina2Transformer2DModel, LUMINA2),
    "z-image": (ZImageTransformer2DModel, Z_IMAGE),
    "flux2-dev": (Flux2Transformer2DModel, FLUX2),
    "flux2-klein": (Flux2Transformer2DModel, {**FLUX2, "guidance_embeds": False}),
    "aura-flow": (AuraFlowTransformer2DModel, AURA_FLOW),
    "hunyuan-dit": (HunyuanDiT2DModel, HUNYUAN_DIT),
    "hunyuan-dit-1.2": (HunyuanDiT2DModel, {**HUNYUAN_DIT, "use_style_cond_and_image_meta_size": False}),
    "hidream": (HiDreamImageTransformer2DModel, {**HIDREAM, "num_routed_experts": 0}),
    "hidream-experts": (HiDreamImageTransformer2DModel, HIDREAM),
    "chroma": (ChromaTransformer2DModel, CHROMA),
}

UNETS = tuple(name for name, (image_model_class, _) in CONFIGS.items() if "UNet" in image_model_class.__name__)
TRANSFORMERS = tuple(name for name in CONFIGS if name not in UNETS)


def build(name: str, seed: int = 0) -> Any:
    """The tiny image model `name` with random weights, in eval mode."""
    image_model_class, config = CONFIGS[name]
    torch.manual_seed(seed)
    return image_model_class(**config).eval()


@torch.no_grad()
def perturb(video_model: Any, seed: int = 1) -> None:
    """Make every temporal layer change its input, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in video_model.temporal_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.1
        if parameter.ndim == 0:
            noise = noise.abs()  # the weight of a blend, which lies between 0 and 1
        parameter.add_(noise.to(parameter.device, parameter.dtype))


def as_video(pictures: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B*F, C, H, W) to (B, C, F, H, W), written without the package's own fold."""
    return pictures.reshape(-1, num_frames, *pictures.shape[1:]).permute(0, 2, 1, 3, 4)
