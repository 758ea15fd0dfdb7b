"""Where temporal layers go, rule by rule, and what they cost at a true size."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from inflate.errors import InputError
from inflate.evaluate.equality import verify
from inflate.inflater import SCHEMES, Scheme, deflate, find_sites, inflate, meta_image_model, report
from inflate.layers import Blend, Frames, TemporalAttention, TemporalConv
from inflate.schemes import placed
from tests.inflater.tiny_models import UNETS, build, perturb

FOR_DITS = ("latte", "spacetime-dit", "sana-video")
TRUE_CONFIGS = Path(__file__).parent / "configs"


@pytest.mark.parametrize("name", UNETS)
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
    kinds = {name: {site.kind for site in find_sites(build("sd15"), name)} for name in SCHEMES if name not in FOR_DITS}
    animatediff = ("animatediff-v1", "animatediff-v2", "animatediff-v3", "animatediff-sdxl", "hotshot-xl")
    assert kinds == {
        "make-a-video": {"convolution", "attention", "time_embedding"},
        "vdm": {"attention"},
        "imagen-video-base": {"attention"},
        "imagen-video-sr": {"convolution"},
        **{name: {"motion_module"} for name in animatediff},
        "tune-a-video": {"transformer_block", "query", "self_attention"},
        "video-ldm": {"attention", "residual_block"},
        "modelscope": {"attention", "residual_block"},
        "text2video-zero": {"self_attention"},
        "lean": {"convolution", "attention", "time_embedding"},
    }


def test_motion_modules_are_numbered_as_animatediff_numbers_them() -> None:
    config = json.loads((TRUE_CONFIGS / "sd15_unet.json").read_text())
    image_model = meta_image_model(UNet2DConditionModel, config)
    for scheme, mid in (("animatediff-v1", 0), ("animatediff-v2", 1)):
        sites = find_sites(image_model, scheme)
        keys = {
            *(f"down_blocks-{block}-motion_modules-{number}" for block in range(4) for number in range(2)),
            *(f"up_blocks-{block}-motion_modules-{number}" for block in range(4) for number in range(3)),
            *(["mid_block-motion_modules-0"] * mid),
        }
        assert {site.key for site in sites} == keys and len(sites) == 20 + mid
        channels = {site.key: site.channels for site in sites}
        assert [channels[f"down_blocks-{block}-motion_modules-0"] for block in range(4)] == [320, 640, 1280, 1280]
        # Published: 417M and 453M, as diffusers' MotionAdapter has them.
        assert report(image_model, scheme, 16, (8, 8)).new_parameters == (453_209_280 if mid else 417_137_600)
    assert find_sites(image_model, "animatediff-v2")[8].name == "mid_block.attentions.0"


@torch.no_grad()
def test_sparse_causal_attention_sees_the_first_and_the_previous_frame() -> None:
    """Which frame moves when one changes; only attention inside the transformer blocks mixes frames here."""
    image_model = build("sd15")
    for scheme, reached in (("text2video-zero", [[0, 1, 2, 3], [1]]), ("tune-a-video", [[0, 1, 2, 3], [1, 2, 3]])):
        model = inflate(image_model, scheme, 4)
        states, sample = torch.randn(1, 5, 12), torch.randn(1, 4, 4, 8, 8)
        before = model(sample, 5, encoder_hidden_states=states).sample
        for changed, expected in zip((0, 1), reached, strict=True):
            other = sample.clone()
            other[:, :, changed] += 1
            after = model(other, 5, encoder_hidden_states=states).sample
            moved = [index for index in range(4) if not torch.equal(after[:, :, index], before[:, :, index])]
            # Frame 3 hears of frame 1 through frame 2, one layer later.
            assert moved == expected, (scheme, changed)
        model.image_model.set_default_attn_processor()
        deflate(model)


@torch.no_grad()
def test_cross_frame_attention_is_the_papers() -> None:
    """Against a hand-written one in a single attention: queries of each frame, keys and values of the first."""
    image_model = build("sd15")
    attention = image_model.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    model = inflate(image_model, "text2video-zero", 3)
    tokens = torch.randn(6, 10, 8)
    expected = attention(
        tokens, encoder_hidden_states=tokens.reshape(2, 3, 10, 8)[:, :1].repeat(1, 3, 1, 1).flatten(0, 1)
    )
    with model.context.during(Frames(3)):
        assert torch.equal(attention(tokens), expected)
    assert not torch.equal(attention(tokens), expected)


def test_a_scheme_survives_json_and_refuses_nonsense() -> None:
    for scheme in SCHEMES.values():
        assert Scheme.from_json(scheme.to_json()) == scheme
    values = json.loads(SCHEMES["make-a-video"].to_json())
    with pytest.raises(InputError, match="adds no temporal layer"):
        Scheme.from_json(json.dumps({**values, "attention": False, "convolution": False}))
    with pytest.raises(InputError, match=r"unknown position 'relativ' \(did you mean 'relative'\?\)"):
        Scheme.from_json(json.dumps({**values, "position": "relativ"}))
    with pytest.raises(InputError, match="kernel_size must be odd and positive, got 2"):
        Scheme.from_json(json.dumps({**values, "kernel_size": 2}))
    with pytest.raises(InputError, match="extra_in_channels must be at least 1, got -1"):
        Scheme.from_json(json.dumps({**values, "extra_in_channels": -1}))
    with pytest.raises(InputError, match="written by another version"):
        Scheme.from_json(json.dumps({**values, "new_field": 1}))


def test_a_scheme_changes_by_the_words_of_files_and_keeps_what_they_cannot_say() -> None:
    rotary = SCHEMES["vdm"].changed(name="mine", position="rotary", guidance_range=(1, 4), shared_noise=0.5)
    assert rotary.name == "mine" and rotary.layers == (placed("attention", TemporalAttention, position="rotary"),)
    assert rotary.numbers.guidance_range == (1, 4) and rotary.noise.share == 0.5
    with pytest.raises(InputError, match=r"a scheme has no field 'positio' \(did you mean 'position'\?\)"):
        rotary.changed(positio="none")
    with pytest.raises(InputError, match="scheme 'mine' has no layer for kernel_size = 5"):
        rotary.changed(kernel_size=5)
    with pytest.raises(InputError, match=r"TemporalConv has no option 'kernel' \(did you mean 'kernel_size'\?\)"):
        placed("convolution", TemporalConv, kernel=5)
    with pytest.raises(InputError, match=r"unknown place 'atention' \(did you mean 'attention'\?\); known: conv"):
        placed("atention", TemporalAttention)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="a blend goes nowhere by itself; give the layer that is to be in it"):
        inflate(build("sd15"), Scheme("blends", "nowhere", (placed("attention", Blend),)))
    two = (placed("convolution", TemporalConv, kernel_size=5), placed("last_convolution", TemporalConv, depthwise=True))
    odd = Scheme("odd", "nowhere", two)
    assert '"layers": [["convolution", "TemporalConv", ' in odd.to_json()
    assert Scheme.from_json(odd.to_json()) == odd
    assert [one.options["kernel_size"] for one in odd.changed(kernel_size=7).layers] == [7, 7]


@torch.no_grad()
@pytest.mark.parametrize("scheme", ["vdm", "make-a-video"])
def test_a_guidance_scale_is_told_with_a_frame_rate_and_without(scheme: str) -> None:
    model = inflate(build("sd15"), SCHEMES[scheme].changed(guidance_range=(1.0, 4.0)), 2)
    assert list(model.temporal)[-1] == "guidance_embedding"
    sample, states = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 5, 12)
    weak, strong = (model(sample, 5, guidance_scale=g, encoder_hidden_states=states).sample for g in (1.0, 4.0))
    assert torch.equal(weak, strong)
    perturb(model)
    weak, strong = (model(sample, 5, guidance_scale=g, encoder_hidden_states=states).sample for g in (1.0, 4.0))
    assert not torch.allclose(weak, strong, atol=1e-4)
    told = model(sample, 5, guidance_scale=1.0, fps=8 if model.scheme.fps_range else None, encoder_hidden_states=states)
    assert torch.equal(told.sample, weak) == (model.scheme.fps_range is None)


def test_report_at_the_true_size_of_stable_diffusion_needs_no_memory() -> None:
    image_model = meta_image_model(
        UNet2DConditionModel, {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    )
    what = report(image_model, "imagen-video-sr", num_frames=2, size=(16, 16))
    assert what.image_parameters == 859_520_964  # as published
    assert what.count("convolution") == 51 and what.count("attention") == 0
    assert what.new_parameters == sum(3 * site.channels**2 + site.channels for site in what.sites)
    assert what.flop_ratio is not None and 0 < what.flop_ratio < 1
    values = json.loads(what.to_json())
    assert values["new_parameters"] == what.new_parameters and len(values["sites"]) == 51


def test_kolors_is_sdxl_with_a_projection_of_its_text() -> None:
    config = json.loads((TRUE_CONFIGS / "kolors_unet.json").read_text())
    image_model = meta_image_model(UNet2DConditionModel, config)
    assert sum(parameter.numel() for parameter in image_model.parameters()) == 2_579_458_820
    assert len(find_sites(image_model, "animatediff-sdxl")) == 15
    what = report(image_model, "lean", 4, (8, 8))
    assert 0 < what.new_parameters < 0.02 * what.image_parameters


def test_report_counts_what_the_model_holds() -> None:
    image_model = build("karlo-decoder")
    what = report(image_model, num_frames=4)
    model = inflate(image_model, num_frames=4)
    assert what.new_parameters == sum(parameter.numel() for parameter in model.temporal_parameters())
    assert what.image_parameters == sum(parameter.numel() for parameter in image_model.parameters())
    assert len(what.sites) == len(model.sites)
    twice = report(build("karlo-decoder"), num_frames=8)
    assert what.image_flops and what.new_flops and twice.new_flops
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
