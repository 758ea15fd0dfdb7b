"""Videos that show one thing after another: which segments are on show when, and embeddings between theirs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.stages import ChainState


def on_show(state: ChainState, seconds: float) -> tuple[int, float]:
    """(k, share): what is on show is ``share`` of segment k and the rest of the one before; 0 is the prompt itself.

    A transition that the next segment cuts short is over by then.
    """
    number = sum(one.seconds <= seconds for one in state.segments)
    if not number:
        return 0, 1.0
    now = state.segments[number - 1]
    ends = [later.seconds for later in state.segments[number : number + 1]]
    length = min([now.transition, *(end - now.seconds for end in ends)])
    return number, min(1.0, (seconds - now.seconds) / length) if length else 1.0


def embeds_at(state: ChainState, video: int, seconds: float) -> Tensor:
    """The image embedding (1, D) that a video is told at a time: a segment's, or on the way from one to the next.

    Raises:
        InputError: the state has no image embeddings, or a segment has none.
    """
    number, share = on_show(state, seconds)
    found = _embeds(state, number)[video : video + 1]
    return found if share == 1 else slerp(_embeds(state, number - 1)[video : video + 1], found, share)


def prompt_at(state: ChainState, video: int, seconds: float) -> str:
    """The prompt of what a video shows most of at a time; empty where there are no prompts."""
    number, share = on_show(state, seconds)
    prompts = (state.prompts[video] if state.prompts else "", *(one.prompt for one in state.segments))
    return prompts[number if share >= 0.5 else number - 1]


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Embeddings (B, D) on the shorter great circle from ``first`` (share 0) to ``second`` (1), lengths in between.

    CLIP's embeddings say what they say by direction (unCLIP, arXiv:2204.06125, section 3.2, interpolates them so).
    Opposite directions have no circle of their own; there the straight line is taken.
    """
    lengths = [one.norm(dim=-1, keepdim=True).clamp(min=1e-12) for one in (first, second)]
    directions = [one / length for one, length in zip((first, second), lengths, strict=True)]
    angle = (directions[0] * directions[1]).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    straight = sine < 1e-4
    safe = torch.where(straight, torch.ones_like(sine), sine)
    weights = [
        torch.where(straight, torch.full_like(sine, part), (part * angle).sin() / safe) for part in (1 - share, share)
    ]
    length = torch.lerp(lengths[0], lengths[1], share)
    return length * (weights[0] * directions[0] + weights[1] * directions[1])


def blend_told(first: Any, second: Any, share: float) -> Any:
    """A network's arguments between two sets of them: numbers on a straight line, all else as the nearer one has it."""
    if isinstance(first, Mapping):
        return {name: blend_told(value, second[name], share) for name, value in first.items()}
    if isinstance(first, Tensor) and first.is_floating_point() and first.shape == second.shape:
        return torch.lerp(first, second, share)
    return second if share >= 0.5 else first


def check_segments(state: ChainState, window: int) -> None:
    """Check segments against the video they are of.

    Args:
        state: the chain's.
        window: frames that the network sees at once; it is told one thing for all of them.

    Raises:
        InputError: the video is too short to show several things, or segments do not follow each other within it.
    """
    if not state.segments:
        return
    if state.num_frames <= window:
        raise InputError(
            f"A video of {state.num_frames} frames shows one thing, for the decoder sees {window} at once; prompts at "
            "later times need a longer one: raise num_frames or leave them out."
        )
    starts = [one.seconds for one in state.segments]
    end = state.num_frames / state.fps
    if starts != sorted(set(starts)) or starts[-1] >= end:
        raise InputError(
            f"Segments must follow each other within the video's {end:g} s, got them at "
            f"{', '.join(f'{start:g}' for start in starts)} s."
        )


def _embeds(state: ChainState, number: int) -> Tensor:
    found = state.segments[number - 1].image_embeds if number else state.image_embeds
    if found is None:
        raise InputError("A segment has a prompt and no image embedding; this needs a cascade with a prior.")
    return found
