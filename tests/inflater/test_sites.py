"""Where temporal layers go, rule by rule, and what they cost at a true size."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from inflate.errors import InputError
from inflate.inflater import SCHEMES, Scheme, find_sites, inflate, meta_image_model, report, verify
from tests.inflater.tiny_models import CONFIGS, build, perturb


@pytest.mark.parametrize("name", CONFIGS)
def test_every_convolution_wider_than_a_pixel_and_every_attention_block(name: str) -> None:
    image_model = build(name)
    sites = find_sites(image_model)
    found = {kind: {site.name for site in sites if site.kind == kind} for kind in ("convolution", "attention")}
    convolutions = {
        module_name
        for module_name, module in image_model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and max(module.kernel_size) > 1
    }
    left_out = {module_name for module_name in convolutions if module_name.endswith(("conv_out", "skip_conv"))}
    assert found["convolution"] == convolutions - left_out
    blocks = {
        module_name
        for module_name, module in image_model.named_modules()
        if type(module).__name__ in ("Transformer2DModel", "KAttentionBlock")
    }
    inside = tuple(block + "." for block in blocks)
    blocks |= {
        module_name
        for module_name, module in image_model.named_modules()
        if isinstance(module, Attention) and not module_name.startswith((*inside, "add_embedding"))
    }
    assert found["attention"] == blocks
    assert sum(site.kind == "time_embedding" for site in sites) == 1


def test_temporal_attention_has_the_heads_of_the_spatial_one() -> None:
    image_model = build("sd15")
    model = inflate(image_model)
    for site in model.sites:
        if site.kind == "attention":
            spatial = image_model.get_submodule(site.name)
            assert isinstance(spatial, Transformer2DModel)
            assert model.temporal[site.key].num_heads == spatial.num_attention_heads


def test_schemes_choose_the_kinds() -> None:
    kinds = {name: {site.kind for site in find_sites(build("sd15"), name)} for name in SCHEMES}
    assert kinds == {
        "make-a-video": {"convolution", "attention", "time_embedding"},
        "vdm": {"attention"},
        "imagen-video-sr": {"convolution"},
    }


def test_a_scheme_survives_json_and_refuses_nonsense() -> None:
    for scheme in SCHEMES.values():
        assert Scheme.from_json(scheme.to_json()) == scheme
    values = json.loads(SCHEMES["vdm"].to_json())
    with pytest.raises(InputError, match="adds no temporal layer"):
        Scheme.from_json(json.dumps({**values, "attention": False}))
    with pytest.raises(InputError, match=r"unknown position 'relativ' \(did you mean 'relative'\?\)"):
        Scheme.from_json(json.dumps({**values, "position": "relativ"}))
    with pytest.raises(InputError, match="kernel_size must be odd and positive, got 2"):
        Scheme.from_json(json.dumps({**values, "kernel_size": 2}))
    with pytest.raises(InputError, match="extra_in_channels must not be negative"):
        Scheme.from_json(json.dumps({**values, "extra_in_channels": -1}))
    with pytest.raises(InputError, match="written by another version"):
        Scheme.from_json(json.dumps({**values, "new_field": 1}))


def test_report_at_the_true_size_of_stable_diffusion_needs_no_memory() -> None:
    image_model = meta_image_model(
        UNet2DConditionModel, {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    )
    what = report(image_model, "imagen-video-sr", num_frames=2, size=(16, 16))
    assert what.image_parameters == 859_520_964  # as published
    assert what.count("convolution") == 51 and what.count("attention") == 0
    assert what.new_parameters == sum(3 * site.channels**2 + site.channels for site in what.sites)
    assert 0 < what.flop_ratio < 1
    values = json.loads(what.to_json())
    assert values["new_parameters"] == what.new_parameters and len(values["sites"]) == 51


def test_report_counts_what_the_model_holds() -> None:
    image_model = build("karlo-decoder")
    what = report(image_model, num_frames=4)
    model = inflate(image_model, num_frames=4)
    assert what.new_parameters == sum(parameter.numel() for parameter in model.temporal_parameters())
    assert what.image_parameters == sum(parameter.numel() for parameter in image_model.parameters())
    assert len(what.sites) == len(model.sites)
    twice = report(build("karlo-decoder"), num_frames=8)
    assert twice.image_flops == 2 * what.image_flops
    assert twice.new_flops > 2 * what.new_flops, "attention grows with the square of the frames"


def test_verify_says_where_a_trained_model_departs() -> None:
    model = inflate(build("sd15"), num_frames=4)
    outcome = verify(model)
    assert outcome.equal and outcome.sentence() == "bit-for-bit equal on every frame"
    perturb(model)
    with torch.no_grad():
        for parameter in model.temporal["conv_in"].parameters():
            parameter.zero_()
        for index in range(8):
            model.temporal.get_parameter("conv_in.weight")[index, index, 1] = 1
    outcome = verify(model, num_frames=3, size=(16, 8), seed=3)
    difference = outcome.difference
    assert difference is not None and not outcome.equal
    assert (outcome.num_frames, outcome.height, outcome.width) == (3, 16, 8)
    assert difference.num_frames_different == 3 and difference.max_abs_difference > 0
    # conv_in is the identity again; the time embedding comes before everything else
    assert difference.first_site == "time_embedding"
    assert difference.num_sites_changed == len(model.sites) - 1
    assert "differs on 3 of 3 frames, first on frame 0 at channel" in outcome.sentence()
    assert f"{len(model.sites) - 1} of {len(model.sites)} temporal layers change their input" in outcome.sentence()
    assert json.loads(outcome.to_json())["equal"] is False


def test_verify_finds_one_changed_frame() -> None:
    """A layer that moves only the last frame: the first frames are equal and said to be."""
    model = inflate(build("sd15"), "imagen-video-sr", num_frames=3)
    with torch.no_grad():
        # frame 0 has nothing before it, so only the frames after it change
        model.temporal.get_parameter("down_blocks-0-resnets-0-conv1.weight")[:, :, 0] = 0.5
    difference = verify(model).difference
    assert difference is not None
    assert difference.frame == 1 and difference.num_frames_different == 2
    assert difference.first_site == "down_blocks.0.resnets.0.conv1" and difference.num_sites_changed == 1
