"""A whole family with every real class at tiny widths and random weights, for tests of the chain."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, PriorTransformer, UNet2DConditionModel
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

from inflate.cascade import Cascade
from inflate.inflater import InflatedModel, inflate
from inflate.models.clip import ClipConfig, TextImageEncoder
from inflate.models.decoder import DecoderStage
from inflate.models.prior import PriorStage

WIDTH = 16
CLIP_CONFIG = ClipConfig(
    embed_dim=WIDTH,
    image_size=16,
    patch_size=8,
    vision_width=16,
    vision_layers=1,
    vision_head_width=8,
    context_length=12,
    vocab_size=600,
    text_width=WIDTH,
    text_heads=2,
    text_layers=1,
)


def tiny_encoder() -> TextImageEncoder:
    torch.manual_seed(1)
    return TextImageEncoder.create(CLIP_CONFIG).eval()


def tiny_prior() -> PriorTransformer:
    torch.manual_seed(2)
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=CLIP_CONFIG.context_length,
        additional_embeddings=4,
    )
    with torch.no_grad():
        prior.clip_mean.normal_(std=0.1)
        prior.clip_std.fill_(0.5)
    return prior.eval()


def tiny_prior_scheduler() -> UnCLIPScheduler:
    return UnCLIPScheduler(prediction_type="sample", variance_type="fixed_small_log", clip_sample_range=5.0)


def tiny_unet(channels: int = 4, size: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(3)
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
    ).eval()


def tiny_video_unet() -> InflatedModel:
    """Inflated, its temporal layers no longer the identity."""
    model = inflate(tiny_unet(), num_frames=4)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.temporal_parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tiny_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"
    )


def tiny_vae() -> AutoencoderDC:
    torch.manual_seed(5)
    return AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        attention_head_dim=4,
        scaling_factor=0.7,
    ).eval()


def tiny_cascade(unet: Any = None) -> Cascade:
    """Steps default to 3, so that tests are quick."""
    prior_stage = PriorStage(
        {"text_encoder": tiny_encoder(), "prior": tiny_prior(), "prior_scheduler": tiny_prior_scheduler()}
    )
    decoder_stage = DecoderStage({"unet": unet or tiny_video_unet(), "scheduler": tiny_scheduler(), "vae": tiny_vae()})
    for stage in (prior_stage, decoder_stage):
        stage.defaults = type(stage.defaults)(num_inference_steps=3, guidance_scale=stage.defaults.guidance_scale)
    return Cascade([prior_stage, decoder_stage], device="cpu", family="tiny")


def save_tiny_family(folder: Path, unet: Any = None) -> Path:
    tiny_cascade(unet).save_pretrained(folder)
    return folder
