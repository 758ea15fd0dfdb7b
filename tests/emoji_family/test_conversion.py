"""Our text tower and decoder in the classes of Stable Diffusion: the same tokens, states and predictions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors.torch import load_file

from emoji_family.text import (
    convert_text_encoder,
    read_text_encoder,
    read_tokenizer,
    tokens_of,
    write_text_encoder,
    write_tokenizer,
)
from emoji_family.training.text_encoder import known_from, scaled
from emoji_family.unet import as_stable_diffusion
from inflate.errors import InputError
from inflate.models.clip import TextImageEncoder

BUNDLED = Path(__file__).parents[2] / "inflate/bundled/emoji"
TEXTS = [
    "",
    "party popper",
    "Man's shoe: medium-dark skin tone",
    "keycap: 10",
    "piñata",
    "A  red   HEART, please & thank you (3 of 4)",
    "kiss: woman, man, light skin tone, dark skin tone and many more words " * 3,
]


@pytest.fixture(scope="module")
def bundled() -> TextImageEncoder:
    return TextImageEncoder.load(BUNDLED / "clip", dtype=torch.float32)


@pytest.mark.reference
def test_transformers_reads_the_same_tokens_and_states(bundled: TextImageEncoder, tmp_path: Path) -> None:
    write_tokenizer(bundled, tmp_path / "tokenizer")
    write_text_encoder(convert_text_encoder(bundled, extra_layers=1), tmp_path / "encoder", torch.float32)
    tokenizer, encoder = read_tokenizer(tmp_path / "tokenizer"), read_text_encoder(tmp_path / "encoder")
    tokens = tokens_of(tokenizer, TEXTS)
    assert torch.equal(tokens, bundled.tokenize(TEXTS))
    with torch.no_grad():
        states = encoder(tokens).last_hidden_state
        true = bundled.encode_tokens(tokens)
    assert states.shape == (len(TEXTS), 32, 256)
    assert (states - true.text_hidden_states).abs().max() < 1e-4
    # transformers pools at the end token: its number in the config is right.
    with torch.no_grad():
        pooled = encoder(tokens).pooler_output
    last = true.text_hidden_states[torch.arange(len(TEXTS)), true.mask.sum(-1) - 1]
    assert (pooled - last).abs().max() < 1e-4


def test_files_have_the_names_that_both_generations_of_transformers_read(
    bundled: TextImageEncoder, tmp_path: Path
) -> None:
    write_text_encoder(convert_text_encoder(bundled), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert all(name.startswith("text_model.") and value.dtype == torch.float16 for name, value in weights.items())
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["CLIPTextModel"]


def test_extra_layers_learn(bundled: TextImageEncoder) -> None:
    model = convert_text_encoder(bundled, extra_layers=1)
    model(torch.tensor([[8190, 320, 8191]])).last_hidden_state.square().sum().backward()
    written = model.state_dict()["encoder.layers.3.mlp.fc2.weight"]
    assert not written.any()
    gradient = dict(model.named_parameters())["encoder.layers.3.mlp.fc2.weight"].grad
    assert gradient is not None and gradient.abs().max() > 0


@pytest.mark.reference
def test_what_does_not_depend_on_the_timestep_is_kept_exactly(parts: Path) -> None:
    """A constant scale and shift after the norm have a place in it; so does the mean class embedding."""
    unet = UNet2DConditionModel.from_pretrained(parts / "unet")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "time_emb_proj" in name:
                value.copy_(torch.zeros_like(value) if name.endswith("weight") else 0.5 * torch.randn_like(value))
    noisy, states, embeds = torch.randn(3, 4, 4, 4), torch.randn(3, 5, 32), torch.randn(3, 32)
    times = torch.tensor([10, 500, 900])
    made = as_stable_diffusion(unet, noisy, times, embeds)
    with torch.no_grad():
        old = unet(noisy, times, states, class_labels=embeds).sample
        new = made(noisy, times, states).sample
    assert (old - new).abs().max() < 1e-5
    assert made.config["class_embed_type"] is None and made.config["resnet_time_scale_shift"] == "default"
    assert made.time_embedding.linear_2.out_features == 4 * made.config["block_out_channels"][0]
    with pytest.raises(InputError, match="class_embed_type"):
        as_stable_diffusion(made, noisy, times, embeds)


@pytest.mark.reference
def test_the_time_embedding_goes_on_in_its_first_numbers(parts: Path) -> None:
    unet: Any = UNet2DConditionModel.from_pretrained(parts / "unet")
    embeds, times = torch.randn(3, 32), torch.tensor([10, 500, 900])
    made = as_stable_diffusion(unet, torch.randn(3, 4, 4, 4), times, embeds)
    with torch.no_grad():
        old = unet.time_embedding(unet.time_proj(times)) + unet.class_embedding(embeds).mean(dim=0)
        new = made.time_embedding(made.time_proj(times))[:, : old.shape[1]]
    assert (old - new).abs().max() < 1e-5


def test_diffusers_motion_model_takes_it(parts: Path) -> None:
    """AnimateDiff's UNet has no other shape; one frame of it is the picture."""
    unet = UNet2DConditionModel.from_pretrained(parts / "unet")
    times = torch.tensor([10, 900])
    made = as_stable_diffusion(unet, torch.randn(2, 4, 4, 4), times, torch.randn(2, 32))
    motion: Any = UNetMotionModel.from_unet2d(made)
    noisy, states = torch.randn(2, 4, 4, 4), torch.randn(2, 5, 32)
    with torch.no_grad():
        for module in motion.modules():
            if isinstance(module, AnimateDiffTransformer3D):
                module.proj_out.weight.zero_()
                module.proj_out.bias.zero_()
        moved = motion(noisy[:, :, None], times, states).sample[:, :, 0]
        assert (moved - made(noisy, times, states).sample).abs().max() < 1e-5


def test_states_count_from_the_end_token_on() -> None:
    tokens = torch.tensor([[8, 3, 9, 0, 0], [8, 3, 4, 5, 9]])
    assert known_from(tokens, 9).tolist() == [[False, False, True, True, True], [False] * 4 + [True]]
    assert torch.allclose(scaled(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]) * 2**0.5)


def test_folders_without_files_are_named(tmp_path: Path) -> None:
    for read in (read_tokenizer, read_text_encoder):
        with pytest.raises(InputError, match="is no"):
            read(tmp_path)
