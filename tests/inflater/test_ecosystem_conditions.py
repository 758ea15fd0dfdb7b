"""ControlNet, T2I-Adapter, IP-Adapter, FreeU and other attention processors: frame by frame as on the image model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from inflate.errors import InputError
from inflate.inflater import inflate, random_inputs, verify
from tests.inflater.ecosystem import (
    FRAMES,
    VIDEOS,
    all_schemes,
    assert_frames_are,
    both_models,
    call,
    inputs_of,
    pipeline_of,
    some_pairs,
    with_equal_frames,
)
from tests.inflater.tiny_models import build

IMAGE_WIDTH = 10


@both_models
@all_schemes
@torch.no_grad()
def test_controlnet(name: str, scheme: str) -> None:
    image_model = build(name)
    torch.manual_seed(3)
    controlnet = ControlNetModel.from_unet(image_model, conditioning_channels=3).eval()
    for parameter in controlnet.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)  # its last convolutions begin at zero
    inputs = inputs_of(image_model, scheme)
    hint = torch.randn(VIDEOS * FRAMES, 3, 64, 64)
    if scheme == "tune-a-video":
        hint = with_equal_frames(hint)
    down, middle = controlnet(**inputs, controlnet_cond=hint, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    expected = image_model(**inputs, **residuals).sample
    assert not torch.allclose(expected, image_model(**inputs).sample, atol=1e-3)
    video_model = inflate(image_model, scheme, FRAMES)
    assert_frames_are(call(video_model, {**inputs, **residuals}), expected, scheme)


@both_models
@all_schemes
@torch.no_grad()
def test_t2i_adapter(name: str, scheme: str) -> None:
    image_model = build(name)
    # What a T2IAdapter gives: one state for each down block, added before the downsampling where there is attention.
    states = [
        torch.randn(VIDEOS * FRAMES, channels, size, size, generator=torch.Generator().manual_seed(3))
        for channels, size in ((8, 8 if name == "sd15" else 4), (16, 4))
    ]
    if scheme == "tune-a-video":
        states = with_equal_frames(states)
    inputs = inputs_of(image_model, scheme)

    def with_states() -> dict[str, Any]:
        return {**inputs, "down_intrablock_additional_residuals": [state.clone() for state in states]}

    expected = image_model(**with_states()).sample
    assert not torch.allclose(expected, image_model(**inputs).sample, atol=1e-3)
    video_model = inflate(image_model, scheme, FRAMES)
    given = with_states()
    assert_frames_are(call(video_model, given), expected, scheme)
    assert len(given["down_intrablock_additional_residuals"]) == len(states), "the caller's own list is left alone"


def ip_adapter(image_model: Any, seed: int = 4) -> dict[str, Any]:
    """Random weights of an IP-Adapter in the layout of its files."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    width = image_model.config.cross_attention_dim
    layers: dict[str, torch.Tensor] = {}
    number = 1
    for key in image_model.attn_processors:
        if key.endswith("attn2.processor"):
            attention = image_model.get_submodule(key.removesuffix(".processor"))
            for part in ("to_k_ip", "to_v_ip"):
                layers[f"{number}.{part}.weight"] = normal(attention.inner_dim, width)
            number += 2
    projection = {
        "proj.weight": normal(4 * width, IMAGE_WIDTH),
        "proj.bias": normal(4 * width),
        "norm.weight": normal(width),
        "norm.bias": normal(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def with_image(inputs: dict[str, Any], images: list[torch.Tensor]) -> dict[str, Any]:
    return {**inputs, "added_cond_kwargs": {**inputs.get("added_cond_kwargs", {}), "image_embeds": images}}


@both_models
@all_schemes
@pytest.mark.parametrize("when", ["before", "after"])
@torch.no_grad()
def test_ip_adapter(name: str, scheme: str, when: str) -> None:
    plain, image_model = build(name), build(name)
    inputs = inputs_of(plain, scheme)
    images = [torch.randn(VIDEOS, 1, IMAGE_WIDTH), torch.randn(VIDEOS, 2, IMAGE_WIDTH)]
    weights = [ip_adapter(plain, 4), ip_adapter(plain, 5)]
    without = plain(**inputs).sample
    plain._load_ip_adapter_weights(weights)
    if when == "before":
        image_model._load_ip_adapter_weights(weights)
        video_model = inflate(image_model, scheme, FRAMES)
    else:
        video_model = inflate(image_model, scheme, FRAMES)
        image_model._load_ip_adapter_weights(weights)
    each = [image.repeat_interleave(FRAMES, dim=0) for image in images]
    expected = plain(**with_image(inputs, each)).sample
    assert not torch.allclose(expected, without, atol=1e-3)
    assert_frames_are(call(video_model, with_image(inputs, each)), expected, scheme)
    assert_frames_are(call(video_model, with_image(inputs, images)), expected, scheme)  # per video
    assert verify(video_model, FRAMES).equal

    pipeline_of(name, image_model).unload_ip_adapter()
    assert_frames_are(call(video_model, inputs), without, scheme)


@pytest.mark.parametrize("videos", [1, 2])
@torch.no_grad()
def test_masks_of_an_ip_adapter_are_not_taken_for_a_batch(videos: int) -> None:
    image_model = build("sd15")
    image_model._load_ip_adapter_weights([ip_adapter(image_model)])
    inputs = random_inputs(image_model, videos * FRAMES, None, torch.Generator().manual_seed(0))
    masks = IPAdapterMaskProcessor().preprocess([torch.zeros(1, 64, 64)], height=64, width=64)
    masks[..., :32] = 1
    inputs["cross_attention_kwargs"] = {"ip_adapter_masks": [masks]}
    expected = image_model(**inputs).sample
    assert not torch.equal(expected, image_model(**{**inputs, "cross_attention_kwargs": None}).sample)
    assert_frames_are(call(inflate(image_model, num_frames=FRAMES), inputs), expected, "make-a-video")


def chunk(unet: Any) -> None:
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.set_chunk_feed_forward(8, 1)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "AttnProcessor": lambda unet: unet.set_attn_processor(AttnProcessor()),
    "AttnProcessor2_0": lambda unet: unet.set_attn_processor(AttnProcessor2_0()),
    "sliced": lambda unet: unet.set_attention_slice("max"),
    "fused projections": lambda unet: unet.fuse_qkv_projections(),
    "FreeU": lambda unet: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.4, b2=1.6),
    "chunks": chunk,
    "channels last": lambda unet: unet.to(memory_format=torch.channels_last),
}


@some_pairs
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_other_ways_of_computing(name: str, scheme: str, change: str) -> None:
    plain, image_model = build(name), build(name)
    inputs = inputs_of(plain, scheme)
    video_model = inflate(image_model, scheme, FRAMES)
    for unet in (plain, image_model):
        CHANGES[change](unet)
    if change == "fused projections" and scheme == "tune-a-video":
        with pytest.raises(InputError, match=r"temporal layers work on separate .*; call unfuse_qkv_projections\(\)"):
            call(video_model, inputs)
        for unet in (plain, image_model):
            unet.unfuse_qkv_projections()
    assert_frames_are(call(video_model, inputs), plain(**inputs).sample, scheme)
