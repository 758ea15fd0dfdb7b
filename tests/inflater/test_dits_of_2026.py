"""What only the image transformers of 2025 and 2026 have: texts of their own lengths, experts, linear attention."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.inflater import (
    IMAGE_MODEL_CLASSES,
    deflate,
    inflate,
    meta_image_model,
    random_inputs,
    report,
)
from tests.inflater.direct_calls import direct
from tests.inflater.tiny_models import QWEN_IMAGE, as_video, build, perturb
from tests.inflater.transformer_calls import (
    ALL_FRAMES,
    FRAMES,
    SIZE,
    TRUE_CONFIGS,
    VIDEOS,
    call,
    inputs_of,
    per_video,
    spread,
)


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


@torch.no_grad()
def test_chroma_takes_a_mask_of_its_text() -> None:
    image_model = build("chroma")
    inputs = spread(inputs_of(image_model, VIDEOS))
    mask = spread((torch.arange(7) < torch.tensor([[2], [7]])).float())
    expected = as_video(direct(image_model, {**inputs, "attention_mask": mask}), FRAMES)
    assert not torch.allclose(expected, as_video(direct(image_model, inputs), FRAMES), atol=1e-4)
    video_model = inflate(image_model, "latte", FRAMES)
    assert torch.equal(call(video_model, {**inputs, "attention_mask": mask}), expected)
