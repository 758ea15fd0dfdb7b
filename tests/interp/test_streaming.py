"""↑F by chunks: the same frames as of the whole video, and never more than a window of them at once."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.stages import ChainState, Segment, StageSettings
from interp.stage import InterpolationStage
from interp.streaming import interpolate_chunks
from tests.interp.networks import Oracle, numbered_video, seeded, solver, trained
from tests.models.tiny_family import WIDTH

TWO = StageSettings(num_inference_steps=2)


def stage_of(model: Any) -> InterpolationStage:
    return InterpolationStage({"interpolation_unet": model, "scheduler": solver()})


def state_of(frames: Tensor, skip: int, **changes: Any) -> ChainState:
    return ChainState((), (0,), frames.shape[2], 8.0, frames=frames, frame_skip=skip, **changes)


def keep(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
    return sample


def cut(frames: Tensor, size: int) -> Iterator[Tensor]:
    yield from frames[0].split(size, dim=1)


@pytest.mark.parametrize(("count", "skip"), [(16, 5), (17, 5), (20, 2), (3, 5), (2, 7), (1, 5), (7, 15)])
def test_chunks_give_the_frames_of_the_whole_video(count: int, skip: int) -> None:
    truth = numbered_video((count - 1) * skip + 1)
    known = truth[:, :, ::skip]
    model = Oracle(truth)
    model.device = torch.device("cpu")
    shares: list[float] = []

    def on_step(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
        shares.append(share or 0.0)
        return sample

    state = replace(state_of(known, skip), frames=None)
    made = list(stage_of(model).stream(state, 0, cut(known, 3), TWO, on_step))
    streamed = torch.cat(made, dim=1)
    torch.testing.assert_close(streamed, truth[0], atol=2e-4, rtol=0)
    assert torch.equal(streamed[:, ::skip], known[0])
    assert shares == sorted(shares) and (count == 1 or count <= 3 or shares[-1] == pytest.approx(1))
    assert max(chunk.shape[1] for chunk in made) <= 16


@pytest.mark.parametrize(("count", "skip"), [(9, 3), (8, 2), (7, 2)])
def test_a_real_network_starts_from_the_same_noise_and_ends_the_same(count: int, skip: int) -> None:
    known = numbered_video(count)
    model = trained(3)
    state = state_of(known, skip)
    whole = stage_of(model)(state, TWO, keep).frames
    streamed = torch.cat(list(stage_of(model).stream(state, 0, cut(known, 2), TWO, keep)), dim=1)
    assert whole is not None
    torch.testing.assert_close(streamed, whole[0], atol=1e-5, rtol=1e-5)


def test_each_window_is_told_the_segment_on_show() -> None:
    known = numbered_video(40)
    first, second = torch.eye(WIDTH)[:1], torch.eye(WIDTH)[1:2]
    state = state_of(known, 2, image_embeds=first, segments=(Segment(2.5, "moon", 0.0, second),))
    model, told = trained(3), []
    model.image_model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["class_labels"][0].argmax().item()), with_kwargs=True
    )
    made = stage_of(model)(state, replace(TWO, num_inference_steps=1), keep)
    assert made.frames is not None and made.frames.shape[2] == 79
    assert told[0] == 0 and told[-1] == 1 and told == sorted(told)


def test_a_rate_that_stays_is_refused() -> None:
    model = trained(3)
    chunks = interpolate_chunks(
        model,
        None,
        solver(),
        cut(numbered_video(4), 2),
        1,
        lambda seconds: None,
        8.0,
        num_inference_steps=1,
        guidance_scale=1.0,
        generator=seeded(0),
    )
    with pytest.raises(InputError, match="a skip of 2 or more, got 1"):
        next(chunks)
