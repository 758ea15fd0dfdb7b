"""LoRA on an inflated model: diffusers' own loading, both file layouts, before and after inflating."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from inflate.inflater import InflatedModel, deflate, find_sites, inflate
from tests.inflater.ecosystem import (
    FRAMES,
    SCHEME_NAMES,
    assert_frames_are,
    call,
    inputs_of,
    pipeline_of,
    some_pairs,
)
from tests.inflater.tiny_models import build, perturb

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
EVERYTHING = (*ATTENTION, "conv1", "conv2", "conv", "conv_in", "conv_shortcut", "proj_in", "proj_out", "linear_2")


@cache
def lora_weights(name: str, targets: tuple[str, ...], seed: int = 5) -> dict[str, torch.Tensor]:
    """Random LoRA weights under PEFT's names, with an effect one can see."""
    unet = build(name)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=list(targets)))
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.3
        for key, value in get_peft_model_state_dict(unet, adapter_name="default").items()
    }


def write_diffusers(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file({f"unet.{key}": value for key, value in weights.items()}, path)
    return path


def write_kohya(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        module, part, _ = key.rsplit(".", 2)
        target = "lora_unet_" + module.replace(".", "_")
        tensors[f"{target}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[part] }.weight"] = value
        tensors[f"{target}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


WRITERS = {"diffusers": write_diffusers, "kohya": write_kohya}


def load(pipeline: Any, path: Path, adapter: str = "style") -> None:
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=adapter)


# The layout of the file is diffusers' business: one kohya file is enough.
@pytest.mark.parametrize(
    ("name", "scheme", "layout"),
    [
        *((name, scheme, "diffusers") for name in ("sd15", "sdxl") for scheme in SCHEME_NAMES),
        ("sd15", "make-a-video", "kohya"),
    ],
)
@torch.no_grad()
def test_lora_after_inflating_gives_what_it_gives_on_the_image_model(
    name: str, scheme: str, layout: str, tmp_path: Path
) -> None:
    path = WRITERS[layout](tmp_path / "lora.safetensors", lora_weights(name, ATTENTION))
    plain, image_model = build(name), build(name)
    inputs = inputs_of(plain, scheme)
    without = plain(**inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    one, other = pipeline_of(name, plain), pipeline_of(name, image_model)
    for pipeline in (one, other):
        load(pipeline, path)
    assert not torch.allclose(plain(**inputs).sample, without, atol=1e-3)
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)

    for pipeline in (one, other):
        pipeline.set_adapters(["style"], [0.4])
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)
    for pipeline in (one, other):
        pipeline.fuse_lora(lora_scale=0.7)
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)
    for pipeline in (one, other):
        pipeline.unfuse_lora()
        pipeline.unload_lora_weights()
    # merging and unmerging rounds, on the image model too
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)


@some_pairs
@torch.no_grad()
def test_lora_before_inflating_leaves_the_sites_where_they_are(name: str, scheme: str, tmp_path: Path) -> None:
    path = write_diffusers(tmp_path / "lora.safetensors", lora_weights(name, EVERYTHING))
    image_model = build(name)
    sites = find_sites(image_model, scheme)
    load(pipeline_of(name, image_model), path)
    assert find_sites(image_model, scheme) == sites
    inputs = inputs_of(image_model, scheme)
    expected = image_model(**inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    assert_frames_are(call(video_model, inputs), expected, scheme)
    assert torch.equal(image_model(**inputs).sample, expected)
    assert deflate(video_model) is image_model
    assert torch.equal(image_model(**inputs).sample, expected)


@some_pairs
@torch.no_grad()
def test_trained_layers_act_on_the_output_with_the_lora(name: str, scheme: str, tmp_path: Path) -> None:
    """Loaded after inflating, before it, and merged into the weights: one video. Unloading restores the bits."""
    path = write_diffusers(tmp_path / "lora.safetensors", lora_weights(name, EVERYTHING))
    inputs = inputs_of(build(name))
    merged, early, late = build(name), build(name), build(name)
    pipeline = pipeline_of(name, merged)
    load(pipeline, path)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    load(pipeline_of(name, early), path)
    expected = _trained(merged, scheme)
    found_early, found_late = _trained(early, scheme), _trained(late, scheme)
    without = call(found_late, inputs)
    pipeline = pipeline_of(name, late)
    load(pipeline, path)
    answer = call(expected, inputs)
    assert not torch.allclose(without, answer, atol=1e-2)
    assert torch.equal(call(found_late, inputs), call(found_early, inputs))
    torch.testing.assert_close(call(found_late, inputs), answer, rtol=1e-5, atol=1e-5)

    twin = copy.deepcopy(found_late)
    assert torch.equal(call(twin, inputs), call(found_late, inputs))
    pipeline.unload_lora_weights()
    assert torch.equal(call(found_late, inputs), without)
    deflate(found_late)
    hooks = [module for module in late.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooks


def test_only_the_lora_and_the_temporal_layers_train() -> None:
    """A LoRA may train beside the temporal layers, each with its own gradients."""
    image_model = build("sd15")
    video_model = inflate(image_model, num_frames=FRAMES)
    perturb(video_model)
    video_model.freeze_image_model()
    image_model.add_adapter(LoraConfig(r=2, target_modules=list(EVERYTHING)))
    call(video_model, inputs_of(image_model)).square().mean().backward()
    with_gradient = {key for key, parameter in image_model.named_parameters() if parameter.grad is not None}
    assert with_gradient and all(".lora_" in key for key in with_gradient)
    assert all(parameter.grad is not None for parameter in video_model.temporal_parameters())


def _trained(image_model: Any, scheme: str) -> InflatedModel:
    torch.manual_seed(0)  # temporal layers begin with random weights behind a zero
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)
    return video_model
