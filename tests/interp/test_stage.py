"""↑F as a stage: what it makes of a state, progress, seeds, and its folder beside the family's image model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import inflate
from inflate.cascade import Cascade
from inflate.errors import InputError
from inflate.stages import ChainState, StageSettings
from interp.folder import fits_beside, load_interpolation, save_partial
from interp.frame_decoder import new_frame_decoder
from interp.stage import InterpolationStage
from tests.interp.networks import Oracle, numbered_video, seeded, solver, trained, untrained
from tests.models.tiny_family import WIDTH, tiny_cascade, tiny_scheduler, tiny_unet, tiny_vae

TWO = StageSettings(num_inference_steps=2)
SIZE = 16


def keep(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
    return sample


def stage_of(model: Any = None, **components: Any) -> InterpolationStage:
    model = model or trained()
    return InterpolationStage({"interpolation_unet": model, "scheduler": solver(), **components})


def state_of(frames: Tensor, seeds: tuple[int, ...] = (0,), **changes: Any) -> ChainState:
    return ChainState((), seeds, frames.shape[2], 8.0, frames=frames, **changes)


def test_sixteen_frames_become_seventy_six_at_five_times_the_rate() -> None:
    truth = numbered_video(76)
    made = stage_of(Oracle(truth))(state_of(truth[:, :, ::5]), TWO, keep)
    assert made.frames is not None and made.fps == 40 and made.known_frames is None
    assert made.passed == ("interpolation",)
    torch.testing.assert_close(made.frames, truth, atol=2e-4, rtol=0)
    assert torch.equal(made.frames[:, :, ::5], truth[:, :, ::5])


def test_missing_frames_are_made_at_the_rate_there_is_and_then_multiplied() -> None:
    truth, mask = numbered_video(46), torch.arange(16) == 0
    sparse = torch.where(mask[None, None, :, None, None], truth[:, :, ::3], torch.zeros(()))
    filled = stage_of(Oracle(truth[:, :, :16]))(
        state_of(truth[:, :, :16] * mask[:, None, None], known_frames=mask, frame_skip=1), TWO, keep
    )
    assert filled.frames is not None and filled.fps == 8 and filled.known_frames is None
    torch.testing.assert_close(filled.frames, truth[:, :, :16], atol=2e-4, rtol=0)
    made = stage_of(trained(3))(state_of(sparse, known_frames=mask, frame_skip=3), TWO, keep)
    assert made.frames is not None and made.frames.shape[2] == 46 and made.fps == 24
    assert torch.equal(made.frames[:, :, 0], truth[:, :, 0])


def test_done_when_it_has_run_or_has_nothing_to_do() -> None:
    stage, frames = stage_of(), torch.zeros(1, 3, 4, SIZE, SIZE)
    some = torch.tensor([True, False, True, True])
    assert not stage.done(state_of(frames)) and not stage.done(replace(state_of(frames), frames=None))
    assert stage.done(state_of(frames, frame_skip=1))
    assert not stage.done(state_of(frames, frame_skip=1, known_frames=some))
    assert stage.done(state_of(frames, passed=("interpolation",)))


def test_one_frame_at_any_skip_stays_one_frame() -> None:
    frames = torch.rand(1, 3, 1, SIZE, SIZE, generator=seeded(0))
    made = stage_of(vae=tiny_vae())(state_of(frames), TWO, keep)
    assert made.frames is not None and torch.equal(made.frames, frames) and made.passed == ("interpolation",)


def test_videos_do_not_depend_on_their_company_and_progress_never_falls() -> None:
    frames = torch.rand(2, 3, 4, SIZE, SIZE, generator=seeded(0)) * 2 - 1
    embeds = torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=seeded(1)), dim=-1)
    mask = torch.tensor([True, False, False, True])
    stage, seen = stage_of(vae=tiny_vae(), frame_decoder=new_frame_decoder((8, 8), norm_num_groups=4)), []

    def note(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
        seen.append((video, step))
        return sample

    # At one frame a second, so that new frames are sampled and not only made of their neighbours.
    state = state_of(frames, (7, 8), image_embeds=embeds, known_frames=mask, frame_skip=3)
    state = replace(state, fps=1.0)
    both = stage(state, TWO, note).frames
    alone = stage(replace(state, seeds=(8,), frames=frames[1:], image_embeds=embeds[1:]), TWO, keep).frames
    assert both is not None and alone is not None and both.shape[2] == 10
    assert torch.equal(both[1:], alone)
    other = stage(replace(state, seeds=(7, 9)), TWO, keep).frames
    assert other is not None and torch.equal(other[0], both[0]) and not torch.equal(other[1], both[1])
    assert seen == sorted(seen) and {step for _, step in seen} == {0, 1} and seen[0] == (0, 0) and seen[-1] == (1, 1)


def test_work_counts_the_frames_of_all_windows() -> None:
    stage = stage_of(Oracle(numbered_video(1)))
    planned = ChainState((), (0, 1), 16, 8.0, frame_skip=5)
    assert stage.work(planned, StageSettings(4, cost=2.0)) == 2 * 4 * 5 * 16 * 2.0
    mask = torch.arange(16) < 4
    assert stage.work(replace(planned, known_frames=mask, frame_skip=1), StageSettings(4)) == 2 * 4 * 16
    assert stage.work(replace(planned, num_frames=1), StageSettings(4)) > 0


def test_bad_states_are_one_sentence() -> None:
    frames = torch.zeros(1, 3, 4, SIZE, SIZE)
    with pytest.raises(InputError, match="needs frames"):
        stage_of()(replace(state_of(frames), frames=None), TWO, keep)
    with pytest.raises(InputError, match="speaks of 3 frames; there are 4"):
        stage_of()(state_of(frames, known_frames=torch.ones(3, dtype=torch.bool)), TWO, keep)
    with pytest.raises(InputError, match="needs a scheduler"):
        InterpolationStage({"interpolation_unet": trained(3)})(state_of(frames), TWO, keep)


# On disk.


def family(folder: Path, model: Any = None) -> Path:
    """A family whose interpolation model has the weights of its ``unet/``."""
    stages = (*tiny_cascade().stages, stage_of(model or untrained(), scheduler=tiny_scheduler(), vae=tiny_vae()))
    Cascade(stages, device="cpu", family="tiny").save_pretrained(folder)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_family_holds_the_image_weights_once(tmp_path: Path) -> None:
    model = trained()
    folder = family(tmp_path / "family", model)
    assert names(folder / "interpolation_unet") == {"config.json", "temporal.safetensors"}
    assert names(folder / "unet") == {"config.json", "temporal.safetensors", "diffusion_pytorch_model.safetensors"}
    cascade = Cascade.from_pretrained(folder, device="cpu")
    assert [stage.name for stage in cascade.stages] == ["prior", "decoder", "interpolation"]
    with cascade.loaded(cascade.stages[2]) as stage:
        loaded: Any = stage
        assert same(loaded.components["interpolation_unet"], model)
    made: Any = cascade("sun", num_frames=4, fps=4, frame_skip=3, num_inference_steps=2, output_type="pt")
    assert made.frames.shape[1] == 10 and made.fps == 12


def test_a_family_saved_again_still_fits_whatever_was_loaded(tmp_path: Path) -> None:
    cascade = Cascade.from_pretrained(family(tmp_path / "first"), device="cpu", keep_loaded=True)
    cascade.save_pretrained(tmp_path / "copied")
    cascade("sun", num_frames=4, num_inference_steps=2, until="decoder", output_type="pt")
    cascade.save_pretrained(tmp_path / "decoder-loaded")
    with cascade.loaded(cascade.stages[2]):
        cascade.save_pretrained(tmp_path / "all-loaded")
    first = load_interpolation(tmp_path / "first/interpolation_unet")
    for name in ("copied", "decoder-loaded", "all-loaded"):
        target = tmp_path / name / "interpolation_unet"
        assert names(target) == {"config.json", "temporal.safetensors"}
        assert same(load_interpolation(target), first)


def test_half_precision_image_weights_count_as_the_same(tmp_path: Path) -> None:
    """A family in float16, loaded as float32, with only one of two stages saved as it is loaded."""
    half = untrained().half()
    half.image_model.save_pretrained(tmp_path / "family/unet")
    save_partial(half, tmp_path / "family/interpolation_unet", tmp_path / "family/unet")
    index = {"interpolation_unet": ("inflate", "InflatedModel")}
    stage: Any = InterpolationStage.from_folder(tmp_path / "family", index)
    half.float().image_model.save_pretrained(tmp_path / "single/unet")
    assert not fits_beside(tmp_path / "family/interpolation_unet", tmp_path / "single/unet")
    assert stage.save(tmp_path / "single") == {"interpolation_unet": ["inflate", "InflatedModel"]}
    assert names(tmp_path / "single/interpolation_unet") == {"config.json", "temporal.safetensors"}
    assert same(load_interpolation(tmp_path / "single/interpolation_unet"), half)


def test_a_stage_saved_without_the_image_model_is_whole(tmp_path: Path) -> None:
    folder = family(tmp_path / "family")
    index = {"interpolation_unet": ("inflate", "InflatedModel")}
    stage: Any = InterpolationStage.from_folder(folder, index)
    (tmp_path / "alone").mkdir()
    stage.save(tmp_path / "alone")
    whole = tmp_path / "alone/interpolation_unet"
    assert "diffusion_pytorch_model.safetensors" in names(whole)
    assert same(load_interpolation(whole), load_interpolation(folder / "interpolation_unet"))
    again: Any = InterpolationStage.from_folder(tmp_path / "alone", index)
    again.load(torch.device("cpu"), torch.float32)
    assert same(again.components["interpolation_unet"], inflate.load(whole))


def test_image_weights_that_are_missing_or_others_are_one_sentence(tmp_path: Path) -> None:
    partial = family(tmp_path / "family") / "interpolation_unet"
    with pytest.raises(InputError, match=r"there is no \S*elsewhere"):
        load_interpolation(partial, tmp_path / "elsewhere")
    other = tiny_unet()
    with torch.no_grad():
        other.conv_in.weight += 0.1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="other image weights than those in"):
        load_interpolation(partial, tmp_path / "other")
    tiny_unet(3).save_pretrained(tmp_path / "pixels")
    with pytest.raises(InputError, match="another architecture"):
        load_interpolation(partial, tmp_path / "pixels")


def test_trained_image_weights_are_written_with_the_model(tmp_path: Path) -> None:
    model = untrained()
    with torch.no_grad():
        model.image_model.conv_in.weight += 0.1
    folder = family(tmp_path / "family", model)
    weights = load_file(folder / "interpolation_unet/diffusion_pytorch_model.safetensors")
    assert torch.equal(weights["conv_in.weight"], model.image_model.conv_in.weight)
    assert same(load_interpolation(folder / "interpolation_unet"), model)
