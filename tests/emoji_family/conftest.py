"""A folder of tiny captioned clips, and tiny folders of the true classes: CLIP, AutoencoderDC, the decoder's UNet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from PIL import Image

from inflate.models.clip import ClipConfig, TextImageEncoder

SIZE = 32
CAPTIONS = {"red": (255, 0, 0), "green leaf": (0, 128, 0), "deep blue sea": (0, 0, 255), "it's purple": (120, 0, 120)}


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of a square that moves, named by their colour."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number, (caption, color) in enumerate(CAPTIONS.items()):
        frames = []
        for index in range(6):
            picture = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
            picture[8:24, 2 * index : 2 * index + 16] = color
            frames.append(Image.fromarray(picture))
        frames[0].save(folder / f"{number}.gif", save_all=True, append_images=frames[1:], duration=40, loop=0)
        rows.append(json.dumps({"file_name": f"{number}.gif", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip/, vae/ (an AutoencoderDC) and unet/ (with a class embedding), random weights."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    widths = {"embed_dim": 32, "text_width": 32, "text_heads": 2, "text_layers": 1, "vocab_size": 600}
    sight = {"vision_width": 32, "vision_head_width": 16, "vision_layers": 1, "image_size": SIZE, "patch_size": 8}
    TextImageEncoder.create(ClipConfig(**widths, **sight)).save(folder / "clip")
    AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.5,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=64,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=32,
    ).save_pretrained(folder / "unet")
    return folder
