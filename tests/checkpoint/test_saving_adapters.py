"""Saving an inflated model whose image model carries more than its config says: what to do is said, nothing is lost."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

import inflate
from inflate.checkpoint import load_temporal, save_temporal
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from tests.inflater.ecosystem import call, inputs_of
from tests.inflater.tiny_models import build, perturb


def trained() -> InflatedModel:
    video_model = inflate.inflate(build("sd15"), "make-a-video", 3)
    perturb(video_model)
    return video_model


def add_lora(image_model: torch.nn.Module, name: str) -> None:
    image_model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "conv1"]), adapter_name=name)  # type: ignore[operator]  # diffusers' own
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in image_model.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@torch.no_grad()
def test_saving_with_a_lora_says_what_to_do(tmp_path: Path) -> None:
    video_model = trained()
    image_model = video_model.image_model
    inputs = inputs_of(image_model)
    without = call(video_model, inputs)
    add_lora(image_model, "style")
    message = r"has an adapter loaded \('style'\).*: fuse it .* and unload it .*, or unload it only, and save again"
    with pytest.raises(InputError, match=message):
        inflate.save(video_model, tmp_path / "model")
    assert not any(tmp_path.iterdir())

    save_temporal(video_model, tmp_path / "temporal")
    assert torch.equal(call(load_temporal(build("sd15"), tmp_path / "temporal"), inputs), without)
    other = build("sd15")
    add_lora(other, "style")
    expected = call(video_model, inputs)
    assert torch.equal(call(load_temporal(other, tmp_path / "temporal"), inputs), expected)

    image_model.fuse_lora()
    image_model.unload_lora()
    expected = call(video_model, inputs)
    inflate.save(video_model, tmp_path / "model")
    found = call(inflate.load(tmp_path / "model"), inputs)
    assert torch.equal(found, expected) and not torch.allclose(found, without, atol=1e-2)


def test_saving_more_weights_than_the_config_describes_says_so(tmp_path: Path) -> None:
    video_model = trained()
    video_model.image_model.fuse_qkv_projections()
    with pytest.raises(InputError, match="more weights than its config describes"):
        inflate.save(video_model, tmp_path / "model")
    assert not any(tmp_path.iterdir())
