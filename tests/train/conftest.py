"""A folder of tiny videos without captions, and tiny folders of the true classes: CLIP, VAE, UNet, super-resolution."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel, UNet2DModel
from PIL import Image

import inflate
from inflate.models.clip import ClipConfig, TextImageEncoder

VAE = {
    "scaling_factor": 0.7,
    "latent_channels": 4,
    "encoder_block_out_channels": [8, 8, 16, 16],
    "decoder_block_out_channels": [8, 8, 16, 16],
    "encoder_layers_per_block": [0, 1, 1, 1],
    "decoder_layers_per_block": [0, 1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [], []],
    "decoder_qkv_multiscales": [[], [], [], []],
}
UNET = {
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 32,
}
CLIP = {
    "embed_dim": 32,
    "text_width": 32,
    "text_heads": 2,
    "text_layers": 1,
    "vision_width": 32,
    "vision_head_width": 16,
    "vision_layers": 1,
    "vocab_size": 600,
}
SR_UNET = {
    "in_channels": 24,
    "out_channels": 12,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "mid_block_type": "none",
    "add_attention": False,
    "norm_num_groups": 4,
    "class_embed_type": "timestep",
}
SIZE = 32


def write_clip(path: Path, color: tuple[int, int, int], num_frames: int = 24) -> None:
    """A square that moves over white, as an endless GIF of 40 ms a frame."""
    frames = []
    for index in range(num_frames):
        picture = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
        left = (2 * index) % (SIZE - 8)
        picture[12:20, left : left + 8] = color
        frames.append(Image.fromarray(picture))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, color in enumerate([(255, 0, 0), (0, 128, 0), (0, 0, 255), (120, 0, 120)]):
        write_clip(folder / f"clip{index}.gif", color)
    return folder


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip/, vae/, unet/, sr_unet/ with random weights, and video/: another such unet, inflated."""
    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    TextImageEncoder.create(ClipConfig(**CLIP)).save(folder / "clip")
    AutoencoderDC(**VAE).save_pretrained(folder / "vae")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    inflate.save(inflate.inflate(UNet2DConditionModel(**UNET), num_frames=4), folder / "video")
    UNet2DModel(**SR_UNET).save_pretrained(folder / "sr_unet")
    return folder
