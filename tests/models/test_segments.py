"""Prompts that follow each other in one video."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.models.decoder import DecoderStage
from inflate.models.prior import PriorStage
from inflate.models.segments import blend_told, check_segments, embeds_at, on_show, prompt_at, slerp
from inflate.stages import ChainState, Segment, StageSettings
from tests.models.tiny_family import (
    WIDTH,
    tiny_encoder,
    tiny_prior,
    tiny_prior_scheduler,
    tiny_scheduler,
    tiny_video_unet,
)

ONCE = StageSettings(num_inference_steps=1, guidance_scale=1.0)


def unit(number: int) -> Tensor:
    return torch.eye(WIDTH)[number : number + 1]


def state(*segments: Segment, **changes: Any) -> ChainState:
    return replace(ChainState(("sun",), (0,), 80, 8.0, image_embeds=unit(0), segments=segments), **changes)


MOON, STAR = Segment(4.0, "moon", 2.0, unit(1)), Segment(5.0, "star", 1.0, unit(2))


def keep(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
    return sample


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, (0, 1.0)), (3.9, (0, 1.0)), (4, (1, 0.0)), (5, (1, 0.5)), (6, (1, 1.0)), (9, (1, 1.0))],
)
def test_a_segment_takes_over_in_its_transition(seconds: float, expected: tuple[int, float]) -> None:
    assert on_show(state(MOON), seconds) == expected
    assert on_show(state(replace(MOON, transition=0.0)), seconds)[1] == 1


def test_a_transition_that_is_cut_short_is_over_by_then() -> None:
    both = state(MOON, STAR)
    assert on_show(both, 4.5) == (1, 0.5) and on_show(both, 5.0) == (2, 0.0) and on_show(both, 7) == (2, 1.0)
    torch.testing.assert_close(embeds_at(both, 0, 4.999), unit(1), atol=2e-3, rtol=0)
    assert prompt_at(both, 0, 4.2) == "sun" and prompt_at(both, 0, 4.8) == "moon" and prompt_at(both, 0, 9) == "star"


def test_embeddings_go_round_the_sphere_and_keep_their_length() -> None:
    halfway = embeds_at(state(MOON), 0, 5.0)
    torch.testing.assert_close(halfway, (unit(0) + unit(1)) / 2**0.5)
    one, other = 3 * unit(0), 5 * unit(1)
    assert slerp(one, other, 0.25).norm() == pytest.approx(3.5)
    torch.testing.assert_close(slerp(one, other, 0.0), one)
    torch.testing.assert_close(slerp(one, other, 1.0), other)
    torch.testing.assert_close(slerp(one, 2 * one, 0.5), 1.5 * one)
    assert torch.isfinite(slerp(one, -one, 0.3)).all()


def test_arguments_of_a_network_are_mixed() -> None:
    first = {"states": torch.zeros(2, 3), "added": {"ids": torch.tensor([1])}, "none": None}
    second = {"states": torch.ones(2, 3), "added": {"ids": torch.tensor([2])}, "none": None}
    mixed = blend_told(first, second, 0.75)
    assert torch.equal(mixed["states"], torch.full((2, 3), 0.75))
    assert mixed["added"]["ids"].tolist() == [2] and mixed["none"] is None


def test_bad_segments_are_refused() -> None:
    with pytest.raises(InputError, match="shows one thing, for the decoder sees 16 at once"):
        check_segments(state(MOON, num_frames=16), 16)
    with pytest.raises(InputError, match="within the video's 10 s, got them at 5, 4 s"):
        check_segments(state(STAR, MOON), 16)
    with pytest.raises(InputError, match="within the video's 10 s, got them at 10 s"):
        check_segments(state(Segment(10.0, "moon")), 16)
    with pytest.raises(InputError, match="begin some seconds after"):
        Segment(0.0, "moon")
    with pytest.raises(InputError, match="segment at 2 s is empty"):
        Segment(2.0, " ")
    with pytest.raises(InputError, match="transition must take some seconds"):
        Segment(2.0, "moon", -1.0)
    with pytest.raises(InputError, match="needs a cascade with a prior"):
        embeds_at(state(replace(MOON, image_embeds=None)), 0, 9.0)


def test_the_prior_embeds_every_segment_as_it_would_alone() -> None:
    prior = PriorStage(
        {"text_encoder": tiny_encoder(), "prior": tiny_prior(), "prior_scheduler": tiny_prior_scheduler()}
    )
    plain = ChainState(("sun", "red heart"), (0, 1), 8, 8.0)
    steps: list[int] = []

    def on_step(video: int, step: int, timestep: Tensor, sample: Tensor, share: float | None = None) -> Tensor:
        steps.append(step)
        return sample

    two = StageSettings(num_inference_steps=2)
    made = prior(replace(plain, segments=(Segment(2.0, "moon"),)), two, on_step)
    assert max(steps) == 1 and len(steps) == 8
    assert made.image_embeds is not None and made.segments[0].image_embeds is not None
    assert torch.equal(made.image_embeds, prior(plain, two, keep).image_embeds)  # pyright: ignore[reportArgumentType]
    alone = prior(replace(plain, prompts=("moon", "moon")), two, keep).image_embeds
    assert alone is not None and torch.equal(made.segments[0].image_embeds, alone)


def test_each_window_is_told_what_is_on_show_in_its_middle() -> None:
    model, told = tiny_video_unet(), []
    stage = DecoderStage({"unet": model, "scheduler": tiny_scheduler()})
    model.image_model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["class_labels"][:1] / WIDTH**0.5), with_kwargs=True
    )
    stage(state(replace(MOON, transition=1.0), num_frames=60), ONCE, keep)
    assert torch.allclose(told[0], unit(0), atol=1e-5) and torch.allclose(told[-1], unit(1), atol=1e-5)
    share = torch.cat(told)[:, 1]
    assert (share.diff() >= -1e-6).all(), "from one to the other in the order of time"
    assert ((share > 0.1) & (share < 0.9)).any()
