"""Image transformers as video models, against diffusers called directly."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inflate as package
from inflate.adapters import adapter_of
from inflate.adapters.transformer import Transformer
from inflate.checkpoint import convert, deflate_folder
from inflate.errors import InputError
from inflate.inflater import (
    IMAGE_MODEL_CLASSES,
    SCHEMES,
    InflatedModel,
    Scheme,
    deflate,
    find_sites,
    inflate,
    meta_image_model,
    random_inputs,
    report,
    verify,
    widen_conv_in,
)
from tests.inflater.direct_calls import direct, places
from tests.inflater.tiny_models import QWEN_IMAGE, TRANSFORMERS, as_video, build, perturb

FRAMES = 4
VIDEOS = 2
SIZE = 8
TRUE_CONFIGS = Path(__file__).parent / "configs"
EXACT = ("latte", "vdm", "lean")
every_model = pytest.mark.parametrize("name", TRANSFORMERS)
# every class, and what differs inside one: joint blocks with a second attention
CLASSES = ("dit", "pixart-alpha", "sd35", "flux-dev", "sana", "qwen-image", "lumina2", "z-image", "flux2-dev")
CLASSES += ("aura-flow", "hunyuan-dit", "hidream-experts")
each_class = pytest.mark.parametrize("name", CLASSES)
PLAIN = ("dit", "pixart-alpha", "sana", "hunyuan-dit")  # text and picture do not attend together


def inputs_of(image_model: Any, pictures: int = VIDEOS * FRAMES, seed: int = 0) -> dict[str, Any]:
    return random_inputs(image_model, pictures, (SIZE, SIZE), torch.Generator().manual_seed(seed))


def per_video(value: Any, frames: int = FRAMES) -> Any:
    """What each video's first frame has, (B, ...)."""
    if isinstance(value, dict):
        return {key: per_video(item, frames) for key, item in value.items()}
    if isinstance(value, list):
        return [per_video(item, frames) for item in value]
    return value[::frames]


def spread(value: Any, frames: int = FRAMES) -> Any:
    """Per video to per frame."""
    if isinstance(value, dict):
        return {key: spread(item, frames) for key, item in value.items()}
    if isinstance(value, list):
        return [spread(item, frames) for item in value]
    return value.repeat_interleave(frames, dim=0)


def call(video_model: InflatedModel, inputs: dict[str, Any], frames: int = FRAMES) -> Tensor:
    rest = dict(inputs)
    sample, timestep = as_video(rest.pop("sample"), frames), rest.pop("timestep")
    fps = 8 if video_model.scheme.fps_range else None
    output = video_model(sample, timestep, fps=fps, **rest)
    assert type(output).__name__ == "Transformer2DModelOutput"
    return output.sample


@pytest.mark.parametrize("scheme", EXACT)
@every_model
@torch.no_grad()
def test_a_new_video_model_is_diffusers_image_model_bit_for_bit(name: str, scheme: str) -> None:
    image_model = build(name)
    inputs = inputs_of(image_model)
    expected = direct(image_model, inputs)
    video_model = inflate(image_model, scheme, FRAMES)
    assert torch.equal(call(video_model, inputs), as_video(expected, FRAMES))
    perturb(video_model)
    trained = call(video_model, inputs)
    assert not torch.allclose(trained, as_video(expected, FRAMES), atol=1e-3), "the temporal layers were not run"
    assert torch.equal(direct(image_model, inputs), expected), "called directly it answers as before"
    assert deflate(video_model) is image_model
    assert torch.equal(direct(image_model, inputs), expected)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@every_model
@torch.no_grad()
def test_equal_frames_are_the_image_models_answer_each(name: str, frames: int) -> None:
    """One frame too, and numbers of frames that patches of two do not divide."""
    image_model = build(name)
    of_videos = inputs_of(image_model, VIDEOS)
    expected = as_video(spread(direct(image_model, of_videos), frames), frames)
    video_model = inflate(image_model, "spacetime-dit", FRAMES)
    inputs = {**of_videos, "sample": spread(of_videos["sample"], frames)}
    torch.testing.assert_close(call(video_model, inputs, frames), expected, rtol=1e-4, atol=1e-5)
    given_per_frame = call(video_model, spread(of_videos, frames), frames)
    torch.testing.assert_close(given_per_frame, expected, rtol=1e-4, atol=1e-5)
    perturb(video_model)
    assert not torch.allclose(call(video_model, inputs, frames), expected, atol=1e-3), "the layers were not run"


@pytest.mark.parametrize("scheme", ["latte", "vdm", "lean", "spacetime-dit", "tune-a-video", "text2video-zero"])
@each_class
@torch.no_grad()
def test_frames_see_each_other(name: str, scheme: str) -> None:
    image_model = build(name)
    if (name, scheme) == ("hunyuan-dit", "tune-a-video"):
        with pytest.raises(InputError, match=r"its rotary positions are those of one picture.*choose 'latte'"):
            inflate(image_model, scheme)
        return
    if scheme in ("tune-a-video", "text2video-zero") and name not in PLAIN:
        with pytest.raises(InputError, match="here text and picture attend together; choose 'latte'"):
            inflate(image_model, scheme)
        return
    inputs = inputs_of(image_model)
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)
    before = call(video_model, inputs)
    changed = inputs["sample"].clone()
    changed[0] += 1  # the first frame of the first video
    after = call(video_model, {**inputs, "sample": changed})
    moved = (after - before).abs().amax(dim=(1, 3, 4))
    assert bool((moved[0] > 1e-6).all()), "every frame of that video"
    assert torch.equal(after[1], before[1]), "no frame of the other"


@each_class
@torch.no_grad()
def test_a_spacetime_patch_tells_its_frames_apart(name: str) -> None:
    image_model = build(name)
    inputs = spread(per_video(inputs_of(image_model)))
    inputs["sample"] = inputs_of(image_model)["sample"]
    video_model = inflate(image_model, "spacetime-dit", FRAMES)
    new = call(video_model, inputs)
    assert torch.equal(new[:, :, 0], new[:, :, 1]) and not torch.allclose(new[:, :, 0], new[:, :, 2], atol=1e-4)
    perturb(video_model)
    trained = call(video_model, inputs)
    assert not torch.allclose(trained[:, :, 0], trained[:, :, 1], atol=1e-3)
    swapped = inputs["sample"][[1, 0, *range(2, VIDEOS * FRAMES)]]
    other = call(video_model, {**inputs, "sample": swapped})
    assert not torch.allclose(other[0], trained[0], atol=1e-4), "the order inside a patch counts"
    patches = inputs["sample"][[2, 3, 0, 1, *range(4, VIDEOS * FRAMES)]]
    other = call(video_model, {**inputs, "sample": patches})[0][:, [2, 3, 0, 1]]
    assert not torch.allclose(other, trained[0], atol=1e-4), "and the order of patches"


@each_class
@torch.no_grad()
def test_a_new_patch_is_the_picture_between_its_frames_and_the_last_is_filled_with_its_own_frame(name: str) -> None:
    image_model = build(name)
    of_video = inputs_of(image_model, 1)
    frames = inputs_of(image_model, 3)["sample"]
    video_model = inflate(image_model, "spacetime-dit", FRAMES)
    between = direct(image_model, {**of_video, "sample": (frames[:1] + frames[1:2]) / 2})
    found = call(video_model, {**of_video, "sample": frames[:2]}, 2)
    torch.testing.assert_close(found, between[:, :, None].expand_as(found), rtol=1e-4, atol=1e-5)

    perturb(video_model)
    three = call(video_model, {**of_video, "sample": frames}, 3)
    filled = call(video_model, {**of_video, "sample": frames[[0, 1, 2, 2]]}, 4)
    assert torch.equal(three, filled[:, :, :3])
    assert not torch.allclose(filled[:, :, 2], filled[:, :, 3], atol=1e-3)


@torch.no_grad()
def test_a_patch_takes_the_conditions_of_its_first_frame() -> None:
    image_model = build("dit")
    video_model = inflate(image_model, "spacetime-dit", FRAMES)
    inputs = inputs_of(image_model, FRAMES)
    inputs["timestep"] = torch.tensor([100, 900, 500, 2])
    expected = call(video_model, inputs)
    assert torch.equal(call(video_model, {**inputs, "timestep": torch.tensor([100, 100, 500, 500])}), expected)
    assert not torch.allclose(call(video_model, {**inputs, "timestep": 900}), expected, atol=1e-3)


ALL_FRAMES = replace(SCHEMES["spacetime-dit"], patch_frames=1, position="none")


@torch.no_grad()
def test_attention_over_all_frames_is_flux_on_one_long_sequence() -> None:
    """diffusers called once, with the tokens, texts and places of all frames of a video in one sequence."""
    image_model = build("flux-dev")
    inputs = spread(inputs_of(image_model, 1))
    inputs["sample"] = inputs_of(image_model, FRAMES)["sample"]
    inputs["encoder_hidden_states"] = inputs_of(image_model, FRAMES)["encoder_hidden_states"]
    packed = inputs["sample"].view(FRAMES, 16, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, FRAMES * 16, 64)
    expected = image_model(
        hidden_states=packed,
        encoder_hidden_states=inputs["encoder_hidden_states"].flatten(0, 1)[None],
        img_ids=places(4, 4).repeat(FRAMES, 1),
        txt_ids=torch.zeros(FRAMES * 7, 3),
        **{name: inputs[name][:1] for name in ("timestep", "pooled_projections", "guidance")},
    ).sample
    expected = expected.view(FRAMES, 4, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(FRAMES, 16, SIZE, SIZE)
    assert not torch.allclose(expected, direct(image_model, inputs), atol=1e-4)
    found = call(inflate(image_model, ALL_FRAMES, FRAMES), inputs)
    torch.testing.assert_close(found, as_video(expected, FRAMES), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_over_all_frames_is_sd3s_blocks_on_one_long_sequence() -> None:
    image_model = build("sd35")
    inputs = spread(inputs_of(image_model, 1))
    inputs["sample"] = inputs_of(image_model, FRAMES)["sample"]
    tokens = image_model.pos_embed(inputs["sample"]).flatten(0, 1)[None]
    text = image_model.context_embedder(inputs["encoder_hidden_states"]).flatten(0, 1)[None]
    condition = image_model.time_text_embed(inputs["timestep"][:1], inputs["pooled_projections"][:1])
    for block in image_model.transformer_blocks:
        text, tokens = block(tokens, text, condition)
    answer = image_model.proj_out(image_model.norm_out(tokens, condition))
    expected = answer.view(FRAMES, 4, 4, 2, 2, 16).permute(0, 5, 1, 3, 2, 4).reshape(FRAMES, 16, SIZE, SIZE)
    assert not torch.allclose(expected, direct(image_model, inputs), atol=1e-4)
    found = call(inflate(image_model, ALL_FRAMES, FRAMES), inputs)
    torch.testing.assert_close(found, as_video(expected, FRAMES), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_over_all_frames_heeds_masks_and_works_in_a_unet() -> None:
    image_model = build("pixart-sigma")
    inputs = spread(inputs_of(image_model, VIDEOS))
    mask = torch.ones(VIDEOS, 16)
    mask[:, 5:] = 0
    expected = direct(image_model, {**inputs, "attention_mask": spread(mask)})
    assert not torch.allclose(expected, direct(image_model, inputs), atol=1e-4)
    video_model = inflate(image_model, ALL_FRAMES, FRAMES)
    found = call(video_model, {**inputs, "attention_mask": mask})
    torch.testing.assert_close(found, as_video(expected, FRAMES), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"takes an attention mask of keys only, shape \(frames, 1, tokens\)"):
        call(video_model, {**inputs, "attention_mask": torch.zeros(VIDEOS, 16, 16)})

    unet = inflate(build("sd15"), replace(SCHEMES["text2video-zero"], frames_seen="all"), FRAMES)
    assert verify(unet).equal
    sample, text = torch.randn(1, 4, FRAMES, SIZE, SIZE), torch.randn(1, 7, 12)
    before = unet(sample, 5, encoder_hidden_states=text).sample
    sample[:, :, -1] += 1
    after = unet(sample, 5, encoder_hidden_states=text).sample
    assert bool(((after - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6).all())


@pytest.mark.parametrize("scheme", ["latte", "lean", "spacetime-dit"])
@every_model
def test_all_temporal_parameters_train_and_nothing_else_with_checkpointing_too(name: str, scheme: str) -> None:
    image_model = build(name)
    video_model = inflate(image_model, scheme, FRAMES)
    perturb(video_model)
    video_model.freeze_image_model()
    inputs = inputs_of(image_model)

    def gradients() -> dict[str, Tensor]:
        video_model.zero_grad()
        call(video_model, inputs).square().mean().backward()
        return {
            key: parameter.grad.clone()
            for key, parameter in video_model.temporal.named_parameters()
            if parameter.grad is not None
        }

    plain = gradients()
    assert set(plain) == {key for key, _ in video_model.temporal.named_parameters()}
    assert all(float(gradient.abs().sum()) > 0 for gradient in plain.values())
    assert all(parameter.grad is None for parameter in image_model.parameters())
    if name == "hidream-experts":  # its experts have gradients in train mode only
        return
    image_model.train()
    if image_model._supports_gradient_checkpointing:  # Hunyuan-DiT does not
        image_model.enable_gradient_checkpointing()
    for module in image_model.modules():
        if type(module).__name__ == "LabelEmbedding":
            module.eval()  # drops labels at random in training
    for key, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scheme", ["latte", "spacetime-dit"])
@each_class
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same_model(name: str, scheme: str, tmp_path: Path) -> None:
    video_model = inflate(build(name, seed=5), scheme, FRAMES)
    perturb(video_model, seed=6)
    inputs = inputs_of(video_model.image_model)
    expected = call(video_model, inputs)
    package.save(video_model, tmp_path / "video")
    torch.manual_seed(7)
    loaded = package.load(tmp_path / "video")
    assert loaded.scheme == SCHEMES[scheme]
    assert torch.equal(call(loaded, inputs), expected)
    other = inflate(build(name, seed=5), scheme, FRAMES)
    perturb(other, seed=8)
    assert not torch.allclose(call(other, inputs), expected, atol=1e-3), "another state would have been seen"


@each_class
def test_a_pipelines_folder_is_converted_and_deflated(name: str, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    build(name).save_pretrained(source / "transformer")
    (source / "model_index.json").write_text("{}")
    done = convert(source, tmp_path / "video", "latte", FRAMES)
    assert done.temporal_file == tmp_path / "video" / "transformer" / "temporal.safetensors"
    video_model = package.load(tmp_path / "video")
    assert verify(video_model, size=(SIZE, SIZE)).equal
    assert deflate_folder(tmp_path / "video", tmp_path / "again") == 3
    again, before = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "again", source)
    )
    assert again == before
    shutil.rmtree(tmp_path / "video")
    convert(source, tmp_path / "video", "spacetime-dit", FRAMES)
    outcome = verify(package.load(tmp_path / "video"), size=(SIZE, SIZE))
    assert outcome.equal and outcome.equal_frames


@pytest.mark.parametrize("scheme", ["latte", "spacetime-dit"])
@each_class
@torch.no_grad()
def test_a_copy_is_a_model_of_its_own(name: str, scheme: str) -> None:
    video_model = inflate(build(name), scheme, FRAMES)
    inputs = inputs_of(video_model.image_model)
    before = call(video_model, inputs)
    other = copy.deepcopy(video_model)
    assert torch.equal(call(other, inputs), before)
    perturb(other)
    assert not torch.allclose(call(other, inputs), before, atol=1e-3)
    assert torch.equal(call(video_model, inputs), before)
    image_model = deflate(other)
    assert not [module for module in image_model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert torch.equal(call(video_model, inputs), before)


SITES = {
    ("dit", "latte"): {"transformer_blocks.0", "transformer_blocks.1"},
    ("sd35", "latte"): {"transformer_blocks.0", "transformer_blocks.1"},
    ("flux-dev", "latte"): {"transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"},
    ("dit", "spacetime-dit"): {
        *("pos_embed", "proj_out_2", "transformer_blocks.0.attn1", "transformer_blocks.1.attn1"),
    },
    ("pixart-alpha", "spacetime-dit"): {
        *("pos_embed", "proj_out", "transformer_blocks.0.attn1", "transformer_blocks.1.attn1"),
    },
    ("sd35", "spacetime-dit"): {
        *("pos_embed", "proj_out", "transformer_blocks.0.attn", "transformer_blocks.0.attn2"),
        "transformer_blocks.1.attn",
    },
    ("flux-dev", "spacetime-dit"): {
        *("x_embedder", "proj_out", "transformer_blocks.0.attn"),
        *("single_transformer_blocks.0.attn", "single_transformer_blocks.1.attn"),
    },
    ("dit", "lean"): {
        *("transformer_blocks.0", "transformer_blocks.1"),
        *("transformer_blocks.0.norm1.emb", "transformer_blocks.1.norm1.emb"),
    },
    ("pixart-alpha", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "adaln_single.emb"},
    ("sd35", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_text_embed"},
    ("sana", "sana-video"): {"transformer_blocks.0.ff.conv_depth", "transformer_blocks.1.ff.conv_depth"},
    ("sana", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_embed.emb"},
    ("sana-sprint", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_embed.timestep_embedder"},
    ("qwen-image", "lean"): {"transformer_blocks.0", "transformer_blocks.1", "time_text_embed"},
    ("lumina2", "lean"): {"noise_refiner.0", "layers.0", "layers.1", "time_caption_embed.timestep_embedder"},
    ("z-image", "spacetime-dit"): {
        *("all_x_embedder.2-1", "all_final_layer.2-1.linear"),
        *("noise_refiner.0.attention", "layers.0.attention", "layers.1.attention"),
    },
    ("flux2-dev", "lean"): {
        *("transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"),
        "time_guidance_embed",
    },
    ("aura-flow", "lean"): {
        *("joint_transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1"),
        "time_step_proj",
    },
    ("hunyuan-dit", "lean"): {*(f"blocks.{number}" for number in range(4)), "time_extra_emb"},
    ("hidream", "spacetime-dit"): {
        *("x_embedder", "final_layer.linear", "double_stream_blocks.0.block.attn1"),
        *("single_stream_blocks.0.block.attn1", "single_stream_blocks.1.block.attn1"),
    },
}


@pytest.mark.parametrize(("name", "scheme"), SITES)
def test_where_temporal_layers_go(name: str, scheme: str) -> None:
    assert {site.name for site in find_sites(build(name), scheme)} == SITES[name, scheme]


@torch.no_grad()
def test_the_frame_rate_reaches_transformers_with_one_layer_for_all_blocks() -> None:
    for name in CLASSES:
        image_model = build(name)
        video_model = inflate(image_model, "lean", FRAMES)
        assert sum(key == "time_embedding" for key in video_model.temporal) == 1
        what = report(image_model, "lean", FRAMES, (SIZE, SIZE))
        assert what.new_parameters == sum(parameter.numel() for parameter in video_model.temporal_parameters())
        perturb(video_model)
        inputs = inputs_of(image_model)
        sample, timestep = as_video(inputs.pop("sample"), FRAMES), inputs.pop("timestep")
        slow, fast, none = (video_model(sample, timestep, fps=fps, **inputs).sample for fps in (2, 24, None))
        assert not torch.allclose(slow, fast, atol=1e-3) and not torch.allclose(slow, none, atol=1e-3)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("make-a-video", "it puts temporal convolutions after spatial ones, and a transformer has none"),
        ("imagen-video-sr", "it puts temporal convolutions after spatial ones, and a transformer has none"),
        ("animatediff-v3", "motion modules go between the layers of a UNet's blocks"),
        ("video-ldm", "temporal residual blocks go after those of a UNet"),
        (replace(SCHEMES["vdm"], name="mine", extra_in_channels=2), "extra input channels go beside the first conv"),
    ],
)
def test_schemes_of_unets_are_refused_with_another_to_choose(scheme: str | Scheme, reason: str) -> None:
    for name in ("dit", "flux-schnell"):
        with pytest.raises(InputError, match=f"finds no place in this .*: {reason}.*; choose 'latte', 'lean'"):
            inflate(build(name), scheme)


def test_what_transformers_cannot_do_is_said_in_one_sentence() -> None:
    dit = inflate(build("dit"), "latte", FRAMES)
    with pytest.raises(InputError, match="cannot do without the argument 'class_labels'"):
        dit(torch.zeros(1, 4, FRAMES, 8, 8), 5)
    labels = torch.zeros(1, dtype=torch.long)
    with pytest.raises(InputError, match="takes square pictures only, got 8 x 12"):
        dit(torch.zeros(1, 4, FRAMES, 8, 12), 5, class_labels=labels)
    with pytest.raises(InputError, match="needs a height and a width divisible by 2, got 7 x 7"):
        dit(torch.zeros(1, 4, FRAMES, 7, 7), 5, class_labels=labels)
    with pytest.raises(InputError, match="sample has 3 channels; this model takes 4"):
        dit(torch.zeros(1, 3, FRAMES, 8, 8), 5, class_labels=labels)
    with pytest.raises(InputError, match="inflated already"):
        inflate(dit.image_model, "spacetime-dit")
    with pytest.raises(InputError, match="has no first convolution to widen; only UNets have"):
        widen_conv_in(build("dit"), 2)
    with pytest.raises(InputError, match="have sinusoidal positions or none; set position to one of them"):
        inflate(build("dit"), replace(SCHEMES["spacetime-dit"], position="rotary"))

    pixart = inflate(build("pixart-alpha"), "latte", FRAMES)
    with pytest.raises(InputError, match="cannot do without the argument 'added_cond_kwargs'"):
        pixart(torch.zeros(1, 4, FRAMES, 8, 8), 5, encoder_hidden_states=torch.zeros(1, 7, 12))

    text = {"encoder_hidden_states": torch.zeros(1, 7, 12), "pooled_projections": torch.zeros(1, 10)}
    sd3 = inflate(build("sd3"), "latte", FRAMES)
    with pytest.raises(InputError, match="has positions for 12 x 12 at most, got 14 x 8"):
        sd3(torch.zeros(1, 16, FRAMES, 14, 8), 5, **text)
    flux = inflate(build("flux-dev"), "latte", FRAMES)
    assert flux.in_channels == 16
    with pytest.raises(InputError, match=r"needs guidance: pass guidance=3\.5"):
        flux(torch.zeros(1, 16, FRAMES, 8, 8), 0.5, **text)
    with pytest.raises(InputError, match="takes no guidance: leave it out"):
        inflate(build("flux-schnell"), "latte")(torch.zeros(1, 16, 2, 8, 8), 0.5, guidance=3.5, **text)
    with pytest.raises(InputError, match="takes no argument 'img_ids'"):
        flux(torch.zeros(1, 16, FRAMES, 8, 8), 0.5, img_ids=torch.zeros(16, 3), **text)


@torch.no_grad()
def test_sana_video_is_a_temporal_convolution_of_each_channel_inside_the_feed_forward() -> None:
    image_model = build("sana")
    inputs = inputs_of(image_model)
    video_model = inflate(image_model, "sana-video", FRAMES)
    assert torch.equal(call(video_model, inputs), as_video(direct(image_model, inputs), FRAMES))
    perturb(video_model)
    found = call(video_model, inputs)
    weights = {name: tensor.clone() for name, tensor in video_model.temporal_state_dict().items()}
    deflate(video_model)
    for number, block in enumerate(image_model.transformer_blocks):
        place = f"transformer_blocks-{number}-ff-conv_depth"

        def over_frames(module: Any, args: Any, output: Tensor, place: str = place) -> Tensor:
            videos = output.unflatten(0, (VIDEOS, FRAMES)).transpose(1, 2)
            mixed = torch.nn.functional.conv3d(
                videos, weights[f"{place}.weight"][..., None, None], weights[f"{place}.bias"], padding=(1, 0, 0),
                groups=videos.shape[1],
            )  # fmt: skip
            return mixed.transpose(1, 2).flatten(0, 1)

        block.ff.conv_depth.register_forward_hook(over_frames)
    torch.testing.assert_close(found, as_video(direct(image_model, inputs), FRAMES), rtol=1e-4, atol=1e-5)
    config = json.loads((TRUE_CONFIGS / "sana_1600m_transformer.json").read_text())
    what = report(meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config), "sana-video", 16)
    # 20 blocks; the feed-forward is 2.5 times as wide as 2240, twice for its gate; three taps and a bias
    assert what.new_parameters == 20 * 2 * 5600 * 4
    for name, reason in (("pixart-alpha", "here they have none"), ("sd15", "are those of some transformers")):
        with pytest.raises(InputError, match=rf"'sana-video' finds no place in this .*{reason}; choose"):
            inflate(build(name), "sana-video")
    with pytest.raises(InputError, match="a transformer has none but in its feed-forwards; choose 'sana-video'"):
        inflate(image_model, "make-a-video")


def test_what_the_models_of_2026_cannot_do_is_said_too() -> None:
    with pytest.raises(InputError, match=r"needs guidance: pass guidance=0\.45, say"):
        inflate(build("sana-sprint"), "latte", 1)(
            torch.zeros(1, 4, 1, 8, 8), 5, encoder_hidden_states=torch.zeros(1, 7, 12)
        )
    editing = type(build("qwen-image"))(**{**QWEN_IMAGE, "zero_cond_t": True})
    with pytest.raises(InputError, match=r"edits pictures \(its config has zero_cond_t\).*take Qwen-Image itself"):
        inflate(editing, "latte")
    text = {"encoder_hidden_states": torch.zeros(1, 7, 12)}
    with pytest.raises(InputError, match="requires the argument 'encoder_attention_mask'"):
        inflate(build("lumina2"), "latte", 1)(torch.zeros(1, 4, 1, 8, 8), 0.5, **text)
    with pytest.raises(InputError, match="has positions for 16 x 16 at most, got 18 x 8"):
        inflate(build("aura-flow"), "latte", 1)(torch.zeros(1, 4, 1, 18, 8), 0.5, **text)
    z_image = inflate(build("z-image"), "latte", 2)
    with pytest.raises(InputError, match="takes no argument 'siglip_feats'"):
        z_image(torch.zeros(1, 4, 2, 8, 8), 0.5, cap_feats=[torch.zeros(7, 12)], siglip_feats=[])
    with pytest.raises(InputError, match=r"cap_feats has first size 3; with 1 videos of 2 frames it must be 1"):
        z_image(torch.zeros(1, 4, 2, 8, 8), 0.5, cap_feats=[torch.zeros(7, 12)] * 3)
    hidream = build("hidream")
    inputs = random_inputs(hidream, 2, (8, 12), torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="takes pictures of 8 x 8 cells at most unless they are square, got 8 x 12"):
        call(inflate(hidream, "latte", 2), inputs, 2)


@pytest.mark.parametrize("scheme", ["latte", "spacetime-dit"])
@torch.no_grad()
def test_texts_of_different_lengths_are_told_apart(scheme: str) -> None:
    """Z-Image's lists and Lumina's masks: the videos' sequences are not equally long, the frames' of one are."""
    z_image = build("z-image")
    inputs = spread(inputs_of(z_image, VIDEOS))
    texts = [torch.randn(40, 12), torch.randn(3, 12)]
    video_model = inflate(z_image, scheme, FRAMES)
    expected = direct(z_image, {**inputs, "cap_feats": [text for text in texts for _ in range(FRAMES)]})
    for given in (texts, [text for text in texts for _ in range(FRAMES)]):
        found = call(video_model, {**inputs, "cap_feats": given})
        torch.testing.assert_close(found, as_video(expected, FRAMES), rtol=1e-4, atol=1e-5)

    lumina = build("lumina2")
    inputs = spread(inputs_of(lumina, VIDEOS))
    inputs["encoder_attention_mask"] = spread(torch.arange(7) < torch.tensor([[2], [7]]))
    expected = as_video(direct(lumina, inputs), FRAMES)
    video_model = inflate(lumina, scheme, FRAMES)
    torch.testing.assert_close(call(video_model, inputs), expected, rtol=1e-4, atol=1e-5)
    perturb(video_model)
    alone = {name: value[:FRAMES] for name, value in inputs.items()}
    alone |= {name: alone[name][:, :2] for name in ("encoder_hidden_states", "encoder_attention_mask")}
    torch.testing.assert_close(call(video_model, alone), call(video_model, inputs)[:1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_hidream_takes_layers_in_one_tensor_and_pictures_that_are_not_square() -> None:
    image_model = build("hidream-experts")
    inputs = random_inputs(image_model, VIDEOS * FRAMES, (8, 4), torch.Generator().manual_seed(0))
    expected = as_video(direct(image_model, inputs), FRAMES)
    for scheme in ("latte", ALL_FRAMES, "spacetime-dit"):
        video_model = inflate(image_model, scheme, FRAMES)
        if scheme == "latte":
            layers = torch.stack(inputs["encoder_hidden_states_llama3"])
            assert torch.equal(call(video_model, {**inputs, "encoder_hidden_states_llama3": layers}), expected)
        alike = {name: spread(per_video(value)) for name, value in inputs.items()}
        for_each = as_video(direct(image_model, alike), FRAMES)
        torch.testing.assert_close(call(video_model, alike), for_each, rtol=1e-4, atol=1e-5)
        perturb(video_model)
        deflate(video_model)
    image_model.train()
    trained = call(inflate(image_model, "latte", FRAMES), inputs)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-5)


def test_arithmetic_that_needs_numbers_is_not_counted() -> None:
    for name in ("lumina2", "hidream-experts"):
        what = report(build(name), "latte", FRAMES, (SIZE, SIZE))
        assert what.image_flops is None and what.flop_ratio is None and what.new_parameters > 0


@torch.no_grad()
def test_numbers_do_for_time_steps_and_guidance_and_pictures_need_not_be_square() -> None:
    image_model = build("flux-dev")
    video_model = inflate(image_model, "latte", FRAMES)
    inputs = random_inputs(image_model, FRAMES, (8, 12), torch.Generator().manual_seed(0))
    inputs["timestep"], inputs["guidance"] = torch.full((FRAMES,), 0.25), torch.full((FRAMES,), 3.5)
    expected = as_video(direct(image_model, inputs), FRAMES)
    assert torch.equal(call(video_model, inputs), expected)
    inputs["timestep"], inputs["guidance"] = 0.25, 3.5
    assert torch.equal(call(video_model, inputs), expected)


# Published sizes; where only the billions are, as of HiDream's 17B, AuraFlow's 6.8B and FLUX.2's 32B and 4B, those that
# diffusers makes of the published config. SD3.5's configs are SD3's with what its documentation in diffusers names:
# dual attention in the first 13 blocks, normed queries and keys, more positions (medium); 38 blocks of 38 heads
# (large).
SIZES: list[tuple[str, dict[str, Any], int]] = [
    ("dit_xl_2_256", {}, 749_826_464),
    ("pixart_alpha_xl_2_512", {}, 610_856_096),
    ("pixart_alpha_xl_2_512", {"sample_size": 128}, 611_349_152),
    ("pixart_sigma_xl_2_512", {}, 610_856_096),
    ("sd3_medium_transformer", {}, 2_028_328_000),
    (
        "sd3_medium_transformer",
        {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384},
        2_243_171_520,
    ),
    (
        "sd3_medium_transformer",
        {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
        8_056_627_520,
    ),
    ("flux1_dev_transformer", {}, 11_901_408_320),
    ("flux1_dev_transformer", {"guidance_embeds": False}, 11_891_178_560),
    ("sana_1600m_transformer", {}, 1_604_462_752),
    ("sana_600m_transformer", {}, 591_747_872),
    ("qwen_image_transformer", {}, 20_430_401_088),
    ("lumina2_transformer", {}, 2_609_769_152),
    ("z_image_transformer", {}, 6_154_908_736),
    ("flux2_dev_transformer", {}, 32_223_281_152),
    ("flux2_klein_4b_transformer", {}, 3_875_544_576),
    ("aura_flow_transformer", {}, 6_833_439_744),
    ("hunyuan_dit_1_2_transformer", {}, 1_499_952_032),
    ("hunyuan_dit_1_2_transformer", {"use_style_cond_and_image_meta_size": True}, 1_516_534_048),
    ("hidream_i1_transformer", {}, 17_105_733_184),
]


@pytest.mark.parametrize(("config_name", "changes", "published"), SIZES)
def test_true_sizes_need_no_memory(config_name: str, changes: dict[str, Any], published: int) -> None:
    config = {**json.loads((TRUE_CONFIGS / f"{config_name}.json").read_text()), **changes}
    image_model = meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)
    adapter = adapter_of(image_model)
    assert isinstance(adapter, Transformer)
    heads, head_dim = adapter.num_heads(image_model.config)
    width, condition_dim = heads * head_dim, adapter.condition_dim(image_model.config)
    # Per block: attention 4 D^2, MLP 8 D^2 and, but where blocks share it, modulation 6 C D.
    expected = sum(
        (12 * width**2 + (0 if blocks.shared_condition else 6 * condition_dim * width))
        * len(list(image_model.get_submodule(blocks.name).children()))
        for blocks in adapter.blocks
    )
    assert sum(parameter.numel() for parameter in image_model.parameters()) == published
    with torch.device("meta"):
        latte = inflate(image_model, "latte", 16)
        assert sum(parameter.numel() for parameter in latte.temporal_parameters()) == pytest.approx(expected, rel=0.01)
        spacetime = inflate(deflate(latte), "spacetime-dit", 16)
    assert 0 < sum(parameter.numel() for parameter in spacetime.temporal_parameters()) < 0.005 * published


def test_a_report_at_true_size() -> None:
    config = json.loads((TRUE_CONFIGS / "dit_xl_2_256.json").read_text())
    image_model = meta_image_model(IMAGE_MODEL_CLASSES[config["_class_name"]], config)
    what, spacetime = (report(image_model, scheme, 16) for scheme in ("latte", "spacetime-dit"))
    assert what.image_parameters == 749_826_464 and (what.height, what.width) == (32, 32)
    assert what.count("temporal_block") == 28 and what.flop_ratio is not None and 0.9 < what.flop_ratio < 1
    # half the tokens, which see eight times as many as they did in a frame: 256 tokens are few beside 1152 channels
    assert spacetime.flop_ratio is not None and -0.5 < spacetime.flop_ratio < 0
    assert spacetime.count("self_attention") == 28
