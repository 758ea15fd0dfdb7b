"""Over a table of image models and schemes: what an inflated model is before, during and after training."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from inflate.adapters import adapter_of
from inflate.checkpoint import load_temporal, save_temporal
from inflate.errors import InputError
from inflate.inflater import SCHEMES, InflatedModel, call_image_model, deflate, find_sites, inflate, random_inputs
from tests.inflater.tiny_models import CONFIGS, as_video, build, perturb

FRAMES = 3
VIDEOS = 2


@cache
def applies(model: str, scheme: str) -> bool:
    try:
        return bool(find_sites(build(model), scheme))
    except InputError:
        return False


CASES = [(model, scheme) for model in CONFIGS for scheme in SCHEMES if applies(model, scheme)]
every_case = pytest.mark.parametrize(("name", "scheme"), CASES)
trained_cases = pytest.mark.parametrize(("name", "scheme"), [case for case in CASES if case[1] != "text2video-zero"])


def inputs_of(image_model: Any, seed: int = 0) -> dict[str, Any]:
    return random_inputs(image_model, VIDEOS * FRAMES, None, torch.Generator().manual_seed(seed))


def with_equal_frames(value: Any) -> Any:
    """Everything that belongs to a frame, as in the first frame of its video."""
    if isinstance(value, dict):
        return {key: with_equal_frames(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_equal_frames(item) for item in value]
    return value[::FRAMES].repeat_interleave(FRAMES, dim=0) if isinstance(value, torch.Tensor) else value


def call(video_model: InflatedModel, inputs: dict[str, Any], frames: int = FRAMES) -> torch.Tensor:
    rest = dict(inputs)
    sample, timestep = as_video(rest.pop("sample"), frames), rest.pop("timestep")
    fps = 8 if video_model.scheme.fps_range else None
    return video_model(sample, timestep, fps=fps, **rest).sample


def test_the_table_is_full() -> None:
    """Which schemes do not apply is known, and by name: nothing falls out of the table unseen."""
    assert len(CONFIGS) >= 18
    missing = {(model, scheme) for model in CONFIGS for scheme in SCHEMES if not applies(model, scheme)}
    unets = {name for name in CONFIGS if adapter_of(build(name)).family == "UNet"}
    without_attention = {"without-attention", "karlo-super-resolution"}
    without_self_attention = {
        *("karlo-decoder", "kandinsky21", "kandinsky22", "deepfloyd", "deepfloyd-ii", "unconditional", "score-sde"),
        *("latent-upscaler", *without_attention),
    }
    expected = {(name, scheme) for name in unets for scheme in ("latte", "spacetime-dit", "sana-video")}
    expected |= {(name, scheme) for name in without_attention for scheme in ("vdm", "imagen-video-base")}
    expected |= {(name, scheme) for name in without_self_attention for scheme in ("tune-a-video", "text2video-zero")}
    assert {case for case in missing if case[0] in unets} == expected


@every_case
@torch.no_grad()
def test_new_layers_change_nothing_and_trained_ones_do(name: str, scheme: str) -> None:
    image_model = build(name)
    inputs = inputs_of(image_model)
    same = SCHEMES[scheme].starts_as_image_model
    expected = call_image_model(image_model, **inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    new = copy.deepcopy(video_model.temporal_state_dict())

    perturb(video_model)
    trained = call(video_model, inputs)
    assert not torch.allclose(trained, as_video(expected, FRAMES), atol=1e-3), "the temporal layers were not run"
    direct = call_image_model(image_model, **inputs).sample
    assert torch.equal(direct, expected), "called directly, the image model answers as before"

    video_model.load_temporal_state_dict(new)
    if same:
        assert torch.equal(call(video_model, inputs), as_video(expected, FRAMES))
    else:
        inputs = with_equal_frames(inputs)
        expected = call_image_model(image_model, **inputs).sample
        torch.testing.assert_close(call(video_model, inputs), as_video(expected, FRAMES), rtol=1e-4, atol=1e-5)

    perturb(video_model)
    assert deflate(video_model) is image_model
    with pytest.raises(InputError, match="this video model was deflated; inflate its image model again"):
        call(video_model, inputs)
    assert torch.equal(call_image_model(image_model, **inputs).sample, expected)
    hooks = [module for module in image_model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooks


@every_case
@torch.no_grad()
def test_one_frame_is_a_picture(name: str, scheme: str) -> None:
    image_model = build(name)
    inputs = random_inputs(image_model, VIDEOS, None, torch.Generator().manual_seed(0))
    expected = call_image_model(image_model, **inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    found = call(video_model, inputs, frames=1)
    if SCHEMES[scheme].patch_frames == 1 and SCHEMES[scheme].frames_seen != "all":
        assert torch.equal(found, as_video(expected, 1))
    else:
        torch.testing.assert_close(found, as_video(expected, 1), rtol=1e-4, atol=1e-5)


@trained_cases
def test_only_temporal_parameters_train(name: str, scheme: str) -> None:
    image_model = build(name)
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)  # a zero output projection would keep the gradient from the layers before it
    video_model.freeze_image_model()
    call(video_model, inputs_of(image_model)).square().mean().backward()
    assert all(parameter.grad is None for parameter in image_model.parameters())
    untouched = [
        key for key, p in video_model.temporal.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not untouched


@every_case
@torch.no_grad()
def test_a_temporal_file_makes_the_same_model_elsewhere(name: str, scheme: str, tmp_path: Path) -> None:
    one = inflate(build(name), scheme, FRAMES)
    perturb(one)
    inputs = inputs_of(one.image_model)
    expected = call(one, inputs)
    path = save_temporal(one, tmp_path / "temporal")
    torch.manual_seed(1234)  # new layers start from other numbers
    other = load_temporal(build(name), path)
    assert other.scheme == one.scheme and other.num_frames == one.num_frames
    assert torch.equal(call(other, inputs), expected)
    if scheme != "text2video-zero":
        new = inflate(build(name), scheme, FRAMES)
        assert not torch.equal(call(new, inputs), expected)
        new.load_temporal_state_dict(one.temporal_state_dict())
        assert torch.equal(call(new, inputs), expected)


@every_case
@torch.no_grad()
def test_half_precision_runs(name: str, scheme: str) -> None:
    image_model = build(name).to(torch.bfloat16)
    inputs = inputs_of(image_model)
    if not SCHEMES[scheme].starts_as_image_model:
        inputs = with_equal_frames(inputs)
    expected = as_video(call_image_model(image_model, **inputs).sample, FRAMES)
    video_model = inflate(image_model, scheme, FRAMES)
    assert all(parameter.dtype == torch.bfloat16 for parameter in video_model.temporal_parameters())
    found = call(video_model, inputs)
    assert found.dtype == torch.bfloat16
    if SCHEMES[scheme].starts_as_image_model:
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    perturb(video_model)
    trained = call(video_model, inputs)
    assert bool(trained.isfinite().all()) and (scheme == "text2video-zero" or not torch.equal(trained, found))


@pytest.mark.parametrize("name", ["without-attention", "karlo-super-resolution"])
def test_attention_alone_finds_no_place_without_spatial_attention(name: str) -> None:
    with pytest.raises(InputError, match=r"'vdm' finds no place in this UNet2D.*\(attention over frames after each"):
        inflate(build(name), "vdm")


def test_a_scheme_of_transformers_is_refused_by_a_unet_and_says_why() -> None:
    with pytest.raises(InputError, match="'latte' finds no place in this UNet2DConditionModel: temporal blocks go"):
        inflate(build("sd15"), "latte")
    with pytest.raises(InputError, match=r"'spacetime-dit' finds no place .* frames are patched together only where"):
        inflate(build("sd15"), "spacetime-dit")
    with pytest.raises(InputError, match=r"'tune-a-video' finds no place .*\(spatial attention to first-and-previous"):
        inflate(build("karlo-decoder"), "tune-a-video")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@torch.no_grad()
def test_identity_in_other_dtypes(dtype: torch.dtype) -> None:
    image_model = build("sd15").to(dtype)
    inputs = inputs_of(image_model)
    expected = image_model(**inputs).sample
    video_model = inflate(image_model, num_frames=FRAMES)
    assert video_model.dtype == dtype and all(p.dtype == dtype for p in video_model.temporal_parameters())
    found = call(video_model, inputs)
    assert found.dtype == dtype and torch.equal(found, as_video(expected, FRAMES))
    perturb(video_model)
    assert not torch.equal(call(video_model, inputs), found)
