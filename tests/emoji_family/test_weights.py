"""The weights that ship: small, half precision, opened by diffusers, and they draw what the caption says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from emoji_family.measure import draw, psnr, round_trip
from emoji_family.pipeline import read_pipeline
from emoji_family.text import tokens_of
from inflate.data import decode_video
from inflate.train.pictures import to_model_range

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "recipes/emoji-sd/weights"
CAPTIONS = ["red heart", "green apple", "blue circle", "sunflower"]

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="recipes/ is not in an installed package")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return read_pipeline(WEIGHTS)


@pytest.fixture(scope="module")
def pictures(pipeline: Any) -> torch.Tensor:
    """Of the captions, (4, 3, 64, 64) in [0, 1]."""
    return draw(pipeline, CAPTIONS, range(4), steps=10, guidance_scale=2.5)


def states(pipeline: Any, texts: list[str]) -> torch.Tensor:
    return pipeline.text_encoder(tokens_of(pipeline.tokenizer, texts)).last_hidden_state


def test_files_are_small_and_in_half_precision() -> None:
    files = sorted(WEIGHTS.rglob("*.safetensors"))
    assert [file.parent.name for file in files] == ["text_encoder", "unet", "vae"]
    assert sum(file.stat().st_size for file in files) < 60e6
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert {opened.get_slice(name).get_dtype() for name in opened.keys()} == {"F16"}
    assert not [path for path in WEIGHTS.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    assert (WEIGHTS / "README.md").is_file()


def test_it_is_an_ordinary_stable_diffusion_pipeline(pipeline: Any) -> None:
    assert type(pipeline) is StableDiffusionPipeline
    assert pipeline.safety_checker is None
    assert pipeline.unet.config.class_embed_type is None and pipeline.unet.config.addition_embed_type is None
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels == 16
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 64


def test_colours_are_those_of_the_captions(pictures: torch.Tensor) -> None:
    """Of what is not white: a red heart is red, an apple green, a circle blue, a sunflower yellow."""
    seen = []
    for picture in pictures:
        things = picture[:, (picture < 0.9).any(dim=0)]
        assert things.shape[1] > 300, "an empty picture"
        seen.append(things.mean(dim=1))
    heart, apple, circle, flower = seen
    assert heart[0] > heart[1:].max() + 0.3
    assert apple[1] > max(apple[0], apple[2])
    assert circle[2] > circle[0] + 0.3
    assert min(flower[0], flower[1]) > flower[2] + 0.2


def test_pictures_come_back_from_the_autoencoder(pipeline: Any) -> None:
    """Also pictures of the test split, which it has never seen."""
    stills = sorted((ROOT / "tests/data/emoji/stills/test").glob("*.webp"))
    frames = np.concatenate([decode_video(path, 64, "pad").frames for path in stills])
    pixels = to_model_range(frames)
    assert len(pixels) == 7
    assert psnr(round_trip(pipeline.vae, pixels), pixels) > 24


@torch.no_grad()
def test_the_caption_lowers_the_denoising_loss(pipeline: Any, pictures: torch.Tensor) -> None:
    vae, scheduler = pipeline.vae, pipeline.scheduler
    clean = vae.encode(pictures * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    assert 0.6 < clean.std() < 1.5
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    times = torch.full((len(clean),), 700)
    noisy, target = scheduler.add_noise(clean, noise, times), scheduler.get_velocity(clean, noise, times)

    def loss(texts: list[str]) -> float:
        made = pipeline.unet(noisy, times, encoder_hidden_states=states(pipeline, texts)).sample
        return float((made - target).square().mean())

    right, wrong, nothing = loss(CAPTIONS), loss(CAPTIONS[1:] + CAPTIONS[:1]), loss([""] * 4)
    assert right < nothing < target.square().mean()
    assert right < 0.8 * wrong
