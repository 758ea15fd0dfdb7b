"""Over a table of image models and schemes: what an inflated model is before, during and after training."""

import copy
from typing import Any

import pytest
import torch

from inflate.errors import InputError
from inflate.inflater import SCHEMES, InflatedModel, deflate, inflate, random_inputs
from tests.inflater.tiny_models import CONFIGS, as_video, build, perturb

FRAMES = 3
VIDEOS = 2
WITHOUT_ATTENTION = ("without-attention", "karlo-super-resolution")
CASES = [
    (model, scheme) for model in CONFIGS for scheme in SCHEMES if not (scheme == "vdm" and model in WITHOUT_ATTENTION)
]
every_case = pytest.mark.parametrize(("name", "scheme"), CASES)


def inputs_of(image_model: Any, seed: int = 0) -> dict[str, Any]:
    return random_inputs(image_model, VIDEOS * FRAMES, None, torch.Generator().manual_seed(seed))


def call(video_model: InflatedModel, inputs: dict[str, Any]) -> torch.Tensor:
    rest = dict(inputs)
    sample, timestep = as_video(rest.pop("sample"), FRAMES), rest.pop("timestep")
    fps = 8 if video_model.scheme.fps_range else None
    return video_model(sample, timestep, fps=fps, **rest).sample


def test_the_table_covers_every_scheme_and_both_classes() -> None:
    assert len(CASES) >= 3 * len(CONFIGS) - len(WITHOUT_ATTENTION)
    assert {image_model_class.__name__ for image_model_class, _ in CONFIGS.values()} == {
        "UNet2DConditionModel",
        "UNet2DModel",
    }


@every_case
@torch.no_grad()
def test_new_layers_change_nothing_and_trained_ones_do(name: str, scheme: str) -> None:
    image_model = build(name)
    inputs = inputs_of(image_model)
    expected = image_model(**inputs).sample
    video_model = inflate(image_model, scheme, FRAMES)
    new = copy.deepcopy(video_model.temporal_state_dict())

    perturb(video_model)
    trained = call(video_model, inputs)
    assert not torch.allclose(trained, as_video(expected, FRAMES), atol=1e-3), "the perturbed layers were not run"
    assert torch.equal(image_model(**inputs).sample, expected), "called directly, the image model answers as before"

    video_model.load_temporal_state_dict(new)
    assert torch.equal(call(video_model, inputs), as_video(expected, FRAMES))

    perturb(video_model)
    assert deflate(video_model) is image_model
    with pytest.raises(InputError, match="this video model was deflated; inflate its image model again"):
        call(video_model, inputs)
    assert torch.equal(image_model(**inputs).sample, expected)
    assert not any(module._forward_hooks for module in image_model.modules())


@every_case
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
def test_temporal_weights_go_from_one_model_to_another(name: str, scheme: str) -> None:
    one, other = inflate(build(name), scheme, FRAMES), inflate(build(name), scheme, FRAMES)
    perturb(one, seed=1)
    perturb(other, seed=2)
    inputs = inputs_of(one.image_model)
    expected = call(one, inputs)
    assert not torch.equal(call(other, inputs), expected)
    report = other.load_temporal_state_dict(one.temporal_state_dict())
    assert torch.equal(call(other, inputs), expected)
    assert report.num_parameters == sum(parameter.numel() for parameter in one.temporal_parameters())


@pytest.mark.parametrize("name", WITHOUT_ATTENTION)
def test_attention_alone_finds_no_place_without_spatial_attention(name: str) -> None:
    with pytest.raises(InputError, match=r"'vdm' finds no place in this UNet2D.*the model has no spatial attention"):
        inflate(build(name), "vdm")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
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
