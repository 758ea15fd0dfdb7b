"""Checkpointing, compiling, converting, offloading, quantising, saving: an inflated model as any torch module."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.hooks import apply_group_offloading
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

from inflate.errors import InputError
from inflate.inflater import InflatedModel, deflate, inflate
from tests.inflater.ecosystem import (
    FRAMES,
    all_schemes,
    assert_frames_are,
    call,
    inputs_of,
    pipeline_of,
    some_pairs,
    two_schemes,
)
from tests.inflater.tiny_models import build, perturb


def trained(name: str, scheme: str) -> InflatedModel:
    image_model = build(name)
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)
    video_model.freeze_image_model()
    return video_model


def gradients(video_model: InflatedModel, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    video_model.zero_grad()
    loss = call(video_model, inputs).square().mean()
    loss.backward()
    found = {key: p.grad.clone() for key, p in video_model.temporal.named_parameters() if p.grad is not None}
    assert len(found) == len(list(video_model.temporal_parameters()))
    return {**found, "loss": loss.detach()}


def reentrant(module: Any, *args: Any) -> Any:
    return checkpoint(module, *args, use_reentrant=True)


@some_pairs
def test_gradient_checkpointing_changes_no_gradient(name: str, scheme: str) -> None:
    video_model = trained(name, scheme).train()
    inputs = inputs_of(video_model.image_model)
    expected = gradients(video_model, inputs)
    for kind in (None, reentrant):
        video_model.image_model.enable_gradient_checkpointing(kind)
        found = gradients(video_model, inputs)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize(
    ("scheme", "what"),
    [
        ("lean", "image model"),
        pytest.param("make-a-video", "video model", marks=pytest.mark.slow),
        pytest.param("tune-a-video", "video model", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_compiled(scheme: str, what: str) -> None:
    video_model = trained("sd15", scheme)
    inputs = inputs_of(video_model.image_model)
    expected = call(video_model, inputs)
    fewer = call(video_model, inputs, frames=2)
    torch._dynamo.reset()
    compiled = video_model.image_model if what == "image model" else video_model
    # One graph, without a break.
    compiled.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(call(video_model, inputs), expected)
    if what == "video model":
        torch.testing.assert_close(call(video_model, inputs, frames=2), fewer)


@all_schemes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@torch.no_grad()
def test_temporal_layers_follow_a_conversion(scheme: str, dtype: torch.dtype) -> None:
    video_model = inflate(build("sd15"), scheme, FRAMES)
    video_model.to(dtype)
    assert video_model.dtype == dtype and {p.dtype for p in video_model.temporal_parameters()} == {dtype}
    inputs = inputs_of(video_model.image_model)
    assert call(video_model, inputs).dtype == dtype


@torch.no_grad()
def test_an_image_model_converted_alone_says_so() -> None:
    video_model = inflate(build("sd15"), num_frames=FRAMES)
    video_model.image_model.to(torch.bfloat16)
    inputs = inputs_of(video_model.image_model)
    with pytest.raises(InputError, match=r"in bfloat16 and its temporal layers in float32.*video_model\.to\(torch\.b"):
        call(video_model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert call(video_model, inputs).isfinite().all()
    video_model.to(torch.bfloat16)
    call(video_model, inputs)


def offload_with_accelerate(image_model: Any) -> Callable[[], Any]:
    cpu_offload(image_model, torch.device("cpu"), offload_buffers=True)
    return lambda: remove_hook_from_submodules(image_model)


def offload_in_groups(image_model: Any) -> Callable[[], Any]:
    apply_group_offloading(
        image_model,
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
    )
    return lambda: None


def store_in_float8(image_model: Any) -> Callable[[], Any]:
    image_model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    return lambda: None


MEMORY_SAVERS = {
    "accelerate": offload_with_accelerate,
    "groups": offload_in_groups,
    "float8": store_in_float8,
}


@two_schemes
@pytest.mark.parametrize("saver", MEMORY_SAVERS)
@pytest.mark.parametrize("when", ["before", "after"])
@torch.no_grad()
def test_memory_savers(scheme: str, saver: str, when: str) -> None:
    plain, image_model = build("sd15"), build("sd15")
    inputs = inputs_of(plain, scheme)
    MEMORY_SAVERS[saver](plain)
    if when == "before":
        MEMORY_SAVERS[saver](image_model)
    video_model = inflate(image_model, scheme, FRAMES)
    if when == "after":
        MEMORY_SAVERS[saver](image_model)
    assert video_model.dtype == torch.float32 and video_model.device.type == "cpu"
    assert {(p.dtype, p.device.type) for p in video_model.temporal_parameters()} == {(torch.float32, "cpu")}
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)


@all_schemes
def test_a_quantised_image_model(scheme: str) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    image_model = build("sd15")
    quantization.quantize_(image_model, quantization.Int8WeightOnlyConfig())
    inputs = inputs_of(image_model, scheme)
    with torch.no_grad():
        expected = image_model(**inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    assert {p.dtype for p in video_model.temporal_parameters()} == {torch.float32}
    with torch.no_grad():
        assert_frames_are(call(video_model, inputs), expected, scheme)
    perturb(video_model)
    video_model.freeze_image_model()
    gradients(video_model, inputs)


@some_pairs
@torch.no_grad()
def test_diffusers_image_pipeline_makes_the_same_picture(name: str, scheme: str) -> None:
    image_model = build(name)
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)

    def picture(unet: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        text = torch.randn(1, 7, 12, generator=torch.Generator().manual_seed(1))
        pooled = {"pooled_prompt_embeds": text[:, 0, :10]} if name == "sdxl" else {}
        pipeline = pipeline_of(name, unet, DDIMScheduler(steps_offset=1, clip_sample=False))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=text,
            guidance_scale=1.0,
            num_inference_steps=2,
            generator=generator,
            output_type="latent",
            **pooled,
        ).images

    assert torch.equal(picture(video_model.image_model), picture(build(name)))


@all_schemes
@torch.no_grad()
def test_saving_the_image_model_while_inflated_writes_the_image_model(scheme: str, tmp_path: Path) -> None:
    image_model = build("sd15")
    image_model.save_pretrained(tmp_path / "before")
    inputs = inputs_of(image_model)
    expected = image_model(**inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)
    image_model.save_pretrained(tmp_path / "while")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "while" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    assert (
        load_file(tmp_path / "while" / "diffusion_pytorch_model.safetensors").keys() == image_model.state_dict().keys()
    )
    assert torch.equal(UNet2DConditionModel.from_pretrained(tmp_path / "while").eval()(**inputs).sample, expected)
    again = pickle.loads(pickle.dumps(video_model))
    assert torch.equal(call(again, inputs), call(video_model, inputs))


def quantise(model: torch.nn.Module) -> None:
    """torch's own int8 for linear layers, in place: it puts other modules there and copies hooks to them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao is to take its place; that is tested where it is installed
        torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, inplace=True)


@pytest.mark.skipif(torch.backends.quantized.engine in ("none", None), reason="this torch has no quantised layers")
@pytest.mark.parametrize("scheme", ["tune-a-video", "make-a-video"])
@torch.no_grad()
def test_quantised_after_inflating_is_quantised_before(scheme: str) -> None:
    after, image_model = trained("sd15", scheme), build("sd15")
    quantise(image_model)
    before = inflate(image_model, scheme, FRAMES)
    before.load_temporal_state_dict(after.temporal_state_dict())
    inputs = inputs_of(build("sd15"))
    plain = call(after, inputs)
    quantise(after.image_model)
    found = call(after, inputs)
    assert torch.equal(found, call(before, inputs)), "a hook ran twice, or not at all"
    assert not torch.equal(found, plain)
    assert not any(module._forward_hooks for module in deflate(after).modules())
