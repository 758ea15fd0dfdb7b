"""Image transformers as video models, against diffusers called directly."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import inflate as package
from inflate.checkpoint import convert, deflate_folder
from inflate.errors import InputError
from inflate.inflater import (
    SCHEMES,
    deflate,
    inflate,
    verify,
)
from tests.inflater.direct_calls import direct, places
from tests.inflater.tiny_models import as_video, build, perturb
from tests.inflater.transformer_calls import (
    ALL_FRAMES,
    EXACT,
    FRAMES,
    PLAIN,
    SIZE,
    VIDEOS,
    call,
    each_class,
    every_model,
    inputs_of,
    per_video,
    spread,
)


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

    unet = inflate(build("sd15"), SCHEMES["text2video-zero"].changed(frames_seen="all"), FRAMES)
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
