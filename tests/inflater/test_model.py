"""Calling an inflated model: arguments, frames, copies, checkpoints."""

import copy
import json
import math
import pickle
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from inflate.errors import InputError
from inflate.inflater import SCHEMES, InflatedModel, Scheme, deflate, inflate, random_inputs
from tests.inflater.tiny_models import as_video, build, perturb

FRAMES = 3


def video(batch: int = 2, frames: int = FRAMES, channels: int = 4) -> torch.Tensor:
    return torch.randn(batch, channels, frames, 8, 8, generator=torch.Generator().manual_seed(0))


def text(batch: int) -> torch.Tensor:
    return torch.randn(batch, 5, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def video_model() -> InflatedModel:
    model = inflate(build("sd15"), num_frames=FRAMES)
    perturb(model)
    return model


@torch.no_grad()
def test_arguments_per_video_are_repeated_for_its_frames(video_model: InflatedModel) -> None:
    sample, states, time = video(), text(2), torch.tensor([3, 700])
    per_video = video_model(sample, time, fps=torch.tensor([4.0, 8.0]), encoder_hidden_states=states).sample
    per_frame = video_model(
        sample,
        time.repeat_interleave(FRAMES),
        fps=torch.tensor([4.0, 8.0]),
        encoder_hidden_states=states.repeat_interleave(FRAMES, dim=0),
    ).sample
    assert torch.equal(per_video, per_frame)
    for index in range(2):
        alone = video_model(
            sample[index : index + 1],
            time[index],
            fps=float([4, 8][index]),
            encoder_hidden_states=states[index : index + 1],
        ).sample
        torch.testing.assert_close(alone[0], per_video[index])


@torch.no_grad()
def test_nested_arguments_are_repeated_too() -> None:
    model = inflate(build("sdxl"), num_frames=FRAMES)
    one = random_inputs(model.image_model, 2, None, torch.Generator().manual_seed(0))
    each: dict[str, Any] = {
        "encoder_hidden_states": one["encoder_hidden_states"].repeat_interleave(FRAMES, dim=0),
        "added_cond_kwargs": {
            key: value.repeat_interleave(FRAMES, dim=0) for key, value in one["added_cond_kwargs"].items()
        },
    }
    pictures = torch.randn(2 * FRAMES, 4, 8, 8)
    expected = model.image_model(pictures, 5, **each).sample
    found = model(
        as_video(pictures, FRAMES),
        5,
        encoder_hidden_states=one["encoder_hidden_states"],
        added_cond_kwargs=one["added_cond_kwargs"],
    ).sample
    assert torch.equal(found, as_video(expected, FRAMES))


@torch.no_grad()
def test_residuals_of_a_controlnet_are_per_frame_and_its_lists_survive() -> None:
    image_model = build("sd15")
    pictures, states = torch.randn(FRAMES, 4, 8, 8), text(1).expand(FRAMES, -1, -1)
    sizes = [(8, 8), (8, 8), (8, 4), (16, 4)]
    down = [torch.randn(FRAMES, channels, side, side) for channels, side in sizes]
    middle = torch.randn(FRAMES, 16, 4, 4)
    plain = image_model(pictures, 5, encoder_hidden_states=states).sample
    arguments = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    expected = image_model(pictures, 5, encoder_hidden_states=states, **arguments).sample
    assert not torch.equal(plain, expected)
    model = inflate(image_model, num_frames=FRAMES)
    found = model(as_video(pictures, FRAMES), 5, encoder_hidden_states=text(1), **arguments).sample
    assert torch.equal(found, as_video(expected, FRAMES))
    adapter = [torch.randn(FRAMES, 8, 8, 8)]
    model(as_video(pictures, FRAMES), 5, encoder_hidden_states=text(1), down_intrablock_additional_residuals=adapter)
    assert len(adapter) == 1, "diffusers empties the list it is given; the caller's must stay"


@torch.no_grad()
def test_frames_see_each_other_only_through_temporal_layers(video_model: InflatedModel) -> None:
    """Group norms take their statistics per frame: at initialisation a change in one frame stays in it."""
    changed = video()
    changed[:, :, 1] += 10
    new = inflate(build("sd15"), num_frames=FRAMES)
    for model, stays in ((new, True), (video_model, False)):
        before = model(video(), 5, encoder_hidden_states=text(2)).sample
        after = model(changed, 5, encoder_hidden_states=text(2)).sample
        assert not torch.equal(before[:, :, 1], after[:, :, 1])
        assert torch.equal(before[:, :, 0], after[:, :, 0]) is stays
        assert torch.equal(before[:, :, 2], after[:, :, 2]) is stays


@pytest.mark.parametrize("frames", [1, 2, 7])
@torch.no_grad()
def test_any_number_of_frames(video_model: InflatedModel, frames: int) -> None:
    result = video_model(video(1, frames), 5, fps=8, encoder_hidden_states=text(1)).sample
    assert result.shape == (1, 4, frames, 8, 8) and bool(result.isfinite().all())
    new = inflate(build("sd15"), num_frames=FRAMES)
    pictures = video(1, frames)[0].transpose(0, 1).contiguous()
    expected = new.image_model(pictures, 5, encoder_hidden_states=text(1).expand(frames, -1, -1)).sample
    assert torch.equal(new(video(1, frames), 5, encoder_hidden_states=text(1)).sample, as_video(expected, frames))


@torch.no_grad()
def test_fps_matters_once_trained_and_may_be_left_out(video_model: InflatedModel) -> None:
    def run(fps: Any) -> torch.Tensor:
        return video_model(video(), 5, fps=fps, encoder_hidden_states=text(2)).sample

    assert not torch.equal(run(4), run(30))
    assert not torch.equal(run(None), run(4)), "None adds no embedding"
    assert torch.equal(run(4), run(torch.tensor([4.0, 4.0])))


@torch.no_grad()
def test_a_tuple_when_asked(video_model: InflatedModel) -> None:
    named = video_model(video(), 5, encoder_hidden_states=text(2))
    (bare,) = video_model(video(), 5, return_dict=False, encoder_hidden_states=text(2))
    assert torch.equal(bare, named.sample)
    assert type(named).__name__ == "UNet2DConditionOutput"


@pytest.mark.parametrize("copying", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_a_copy_runs_its_own_layers(video_model: InflatedModel, copying: Any) -> None:
    before = video_model(video(), 5, fps=8, encoder_hidden_states=text(2)).sample
    twin = copying(video_model)
    assert torch.equal(twin(video(), 5, fps=8, encoder_hidden_states=text(2)).sample, before)
    perturb(twin, seed=5)
    assert not torch.equal(twin(video(), 5, fps=8, encoder_hidden_states=text(2)).sample, before)
    assert torch.equal(video_model(video(), 5, fps=8, encoder_hidden_states=text(2)).sample, before)
    assert deflate(twin) is twin.image_model is not video_model.image_model
    assert not any(module._forward_hooks for module in twin.image_model.modules())
    assert torch.equal(video_model(video(), 5, fps=8, encoder_hidden_states=text(2)).sample, before)


@pytest.mark.parametrize("name", ["sd15", "karlo-decoder"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = inflate(build(name), num_frames=FRAMES).train()
        perturb(model)
        if checkpointing:
            model.image_model.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        inputs = random_inputs(model.image_model, FRAMES, None, torch.Generator().manual_seed(0))
        sample, timestep = as_video(inputs.pop("sample"), FRAMES), inputs.pop("timestep")
        model(sample, timestep, fps=8, **inputs).sample.square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        if checkpointing:
            image_model = deflate(model)
            functions = {type(getattr(m, "_gradient_checkpointing_func", None)).__name__ for m in image_model.modules()}
            assert "FrameCheckpoint" not in functions
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_an_error_inside_a_call_leaves_the_image_model_as_it_was(video_model: InflatedModel) -> None:
    image_model = video_model.image_model
    before = image_model(video()[:, :, 0], 5, encoder_hidden_states=text(2)).sample
    with pytest.raises(RuntimeError):
        video_model(video(), 5, encoder_hidden_states=text(2)[..., :7])
    assert torch.equal(image_model(video()[:, :, 0], 5, encoder_hidden_states=text(2)).sample, before)


@torch.no_grad()
def test_extra_input_channels_start_silent_and_can_learn() -> None:
    image_model = build("sd15")
    pictures = torch.randn(FRAMES, 4, 8, 8)
    expected = image_model(pictures, 5, encoder_hidden_states=text(1).expand(FRAMES, -1, -1)).sample
    scheme = SCHEMES["make-a-video"].changed(name="interpolation", extra_in_channels=5)
    model = inflate(image_model, scheme, FRAMES)
    assert model.in_channels == 9 and image_model.config.in_channels == 4
    sample = torch.cat([as_video(pictures, FRAMES), torch.randn(1, 5, FRAMES, 8, 8)], dim=1)
    assert torch.equal(model(sample, 5, encoder_hidden_states=text(1)).sample, as_video(expected, FRAMES))
    model.temporal.get_parameter("conv_in-extra.weight").fill_(0.1)
    assert not torch.equal(model(sample, 5, encoder_hidden_states=text(1)).sample, as_video(expected, FRAMES))
    with pytest.raises(InputError, match=r"sample has 4 channels; this model takes 4 \+ 5"):
        model(as_video(pictures, FRAMES), 5, encoder_hidden_states=text(1))
    assert torch.equal(
        deflate(model)(pictures, 5, encoder_hidden_states=text(1).expand(FRAMES, -1, -1)).sample, expected
    )


@torch.no_grad()
def test_extra_channels_enter_as_through_a_wider_first_convolution_before_its_temporal_one() -> None:
    scheme = SCHEMES["make-a-video"]
    torch.manual_seed(0)
    extra = inflate(build("sd15"), scheme.changed(name="interpolation", extra_in_channels=5), FRAMES)
    perturb(extra)
    wider = build("sd15")
    wider.load_state_dict(extra.image_model.state_dict())
    temporal = extra.temporal_state_dict()
    weight = torch.cat([wider.conv_in.weight, temporal.pop("conv_in-extra.weight")], dim=1)
    wider.conv_in = torch.nn.Conv2d(9, 8, 3, padding=1)
    wider.conv_in.load_state_dict({"weight": weight, "bias": extra.image_model.conv_in.bias})
    expected = inflate(wider, scheme, FRAMES)
    expected.load_temporal_state_dict(temporal)
    sample = video(channels=9)
    one, other = (model(sample, 5, encoder_hidden_states=text(2)).sample for model in (extra, expected))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"encoder_hidden_state": text(2)},
            r"takes no argument 'encoder_hidden_state' \(did you mean 'encoder_hidden_states'\?\)",
        ),
        ({}, "UNet2DConditionModel requires the argument 'encoder_hidden_states'"),
        (
            {"encoder_hidden_states": text(4)},
            r"encoder_hidden_states has first size 4; with 2 videos of 3 frames it must be 2 .* or 6",
        ),
        ({"encoder_hidden_states": text(2), "fps": 0}, r"fps must be positive, got \[0.0, 0.0\]"),
        ({"encoder_hidden_states": text(2), "fps": torch.ones(3)}, "fps has 3 values for 2 videos"),
        (
            {"encoder_hidden_states": text(2), "added_cond_kwargs": {"image_embeds": torch.ones(5, 2)}},
            r"added_cond_kwargs\['image_embeds'\] has first size 5",
        ),
    ],
)
def test_bad_arguments_are_named(video_model: InflatedModel, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        video_model(video(), 5, **arguments)


def test_bad_samples_and_timesteps_are_named(video_model: InflatedModel) -> None:
    with pytest.raises(InputError, match="sample must be a video"):
        video_model(video()[:, :, 0], 5, encoder_hidden_states=text(2))
    with pytest.raises(InputError, match="sample has 3 channels; this model takes 4"):
        video_model(video(channels=3), 5, encoder_hidden_states=text(2))
    with pytest.raises(InputError, match="timestep has first size 4"):
        video_model(video(), torch.arange(4), encoder_hidden_states=text(2))


def test_what_cannot_be_inflated_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot inflate an AutoencoderKL: the image model must be one of diffusers'"):
        inflate(AutoencoderKL(block_out_channels=(4,), norm_num_groups=2))
    image_model = build("sd15")
    with pytest.raises(InputError, match=r"unknown scheme 'make-a-vido' \(did you mean 'make-a-video'\?\); known:"):
        inflate(image_model, "make-a-vido")
    with pytest.raises(InputError, match="num_frames must be at least 1, got 0"):
        inflate(image_model, num_frames=0)
    inflate(image_model)
    with pytest.raises(InputError, match="inflated already"):
        inflate(image_model)


def test_fps_is_refused_by_a_scheme_without_it() -> None:
    model = inflate(build("sd15"), "vdm", FRAMES)
    with pytest.raises(InputError, match="scheme 'vdm' has no frame-rate embedding; leave fps out"):
        model(video(), 5, fps=8, encoder_hidden_states=text(2))


def test_a_temporal_state_dict_must_fit_exactly(video_model: InflatedModel) -> None:
    state = video_model.temporal_state_dict()
    name = "conv_in.weight"
    with pytest.raises(InputError, match=f"1 missing, the first '{name}'"):
        video_model.load_temporal_state_dict({key: value for key, value in state.items() if key != name})
    with pytest.raises(InputError, match=rf"1 unknown, the first 'conv_in.wieght' \(did you mean '{name}'\?\)"):
        video_model.load_temporal_state_dict({**state, "conv_in.wieght": state[name]})
    with pytest.raises(InputError, match=rf"'{name}' has shape \(1, 2\) and should have \(8, 8, 3\)"):
        video_model.load_temporal_state_dict({**state, name: torch.ones(1, 2)})


def test_the_models_own_properties(video_model: InflatedModel) -> None:
    assert video_model.num_frames == FRAMES and video_model.scheme is SCHEMES["make-a-video"]
    assert video_model.config is video_model.image_model.config
    assert video_model.dtype == torch.float32 and video_model.device == torch.device("cpu")
    image_names = {name for name, _ in video_model.image_model.named_parameters()}
    assert image_names == {name for name, _ in build("sd15").named_parameters()}, "parameters keep their names"


def test_frames_further_apart_in_time_share_less_noise() -> None:
    scheme = SCHEMES["make-a-video"].changed(shared_noise=0.8, noise_time=0.5)
    assert scheme.noise_share(4) == pytest.approx(math.exp(-0.5)) and scheme.noise_share(None) == 0.8
    # Two steps at 8 frames a second are one at 4: correlations multiply.
    assert scheme.noise_share(8) ** 2 == pytest.approx(scheme.noise_share(4))
    assert scheme.changed(noise_time=0.0).noise_share(4) == 0.8
    assert Scheme.from_json(scheme.to_json()) == scheme
    older = {name: value for name, value in json.loads(scheme.to_json()).items() if name != "noise_time"}
    assert Scheme.from_json(json.dumps(older)) == scheme.changed(noise_time=0.0)
    with pytest.raises(InputError, match="noise_time must be 0 or some seconds, got -1"):
        scheme.changed(noise_time=-1.0)


@torch.no_grad()
def test_layers_that_are_as_they_started_are_left_out_at_inference() -> None:
    video_model = inflate(build("sd15"), num_frames=FRAMES).eval()
    run: list[str] = []
    for name, layer in video_model.temporal.items():
        inner = layer.forward  # not a hook: a layer with hooks is always run
        layer.forward = lambda *args, _name=name, _inner=inner: run.append(_name) or _inner(*args)  # type: ignore[method-assign]

    def layers_run() -> list[str]:
        run.clear()
        video_model(video(), 7, fps=8, encoder_hidden_states=text(2))
        return sorted(set(run) - {"time_embedding"})

    everything = sorted(set(video_model.temporal) - {"time_embedding"})
    assert layers_run() == []
    with torch.enable_grad():
        assert layers_run() == everything
    video_model.train()
    assert layers_run() == everything
    video_model.eval()
    weight = video_model.temporal.get_submodule("conv_in").weight
    assert isinstance(weight, torch.Tensor)
    weight.data[0, 0, 0] = 0.5  # unseen by the tensor's version
    assert layers_run() == ["conv_in"]
    weight.data[0, 0, 0] = 0.0
    assert layers_run() == []
    perturb(video_model)
    assert layers_run() == everything
