"""What a cascade returns and what it tells a callback."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.errors import InputError, nearest
from inflate.stages import ChainState
from inflate.video import to_uint8

OutputType = Literal["pil", "np", "pt"]
Frames = list[list[Image.Image]] | np.ndarray | Tensor
_OUTPUT_TYPES = ("pil", "np", "pt")


@dataclass(frozen=True)
class CascadeOutput:
    """What a cascade made, for B prompts.

    ``frames``: for "pil" a list of B lists of F pictures; for "np" (B, F, H, W, C) and for "pt" (B, F, C, H, W),
    float32 in [0, 1]; None if the chain was stopped before there were any.
    ``fps``: at which they are to be shown; frame interpolation raises it.
    ``image_embeds``: (B, D), or None; see :class:`ChainState`.
    """

    frames: Frames | None
    fps: float
    image_embeds: Tensor | None


@dataclass(frozen=True)
class Progress:
    """Where a running cascade is; a callback gets it as ``callback_kwargs["progress"]``."""

    stage: str
    stage_index: int  # of the stages that run, from 0
    num_stages: int
    video: int  # from 0
    num_videos: int
    step: int  # the one just done, from 0
    num_steps: int
    fraction: float  # of the whole job's work, 0 to 1


# (cascade, step, timestep, {"latents": ..., "progress": ...}) as diffusers calls it. A returned dict may hold other
# "latents" to go on with; False cancels.
StepCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | bool | None]

# (cascade, name of the stage that has just ended, what it made); False cancels.
StageCallback = Callable[[Any, str, ChainState], bool | None]


def check_output_type(output_type: str) -> None:
    """Raise ``InputError`` with the nearest name unless there is such an output type."""
    if output_type not in _OUTPUT_TYPES:
        hint = nearest(str(output_type), _OUTPUT_TYPES)
        raise InputError(f"output_type {output_type!r} is unknown{hint}; use {', '.join(_OUTPUT_TYPES)}.")


def tell_end(callback: StageCallback | None, cascade: Any, name: str, state: ChainState) -> None:
    """Say that a stage has ended, and what there is; raises ``CancelledError`` if the answer is False."""
    if callback is not None and callback(cascade, name, state) is False:
        raise CancelledError(f"cancelled after {name}")


def as_output(frames: Tensor, output_type: OutputType) -> Frames:
    """(B, 3, F, H, W) in [-1, 1] as one of the output types."""
    if output_type == "pil":
        return [[Image.fromarray(picture) for picture in video] for video in to_uint8(frames)]
    frames = ((frames + 1) / 2).clamp(0, 1)
    if output_type == "np":
        return frames.permute(0, 2, 3, 4, 1).numpy()
    return frames.transpose(1, 2)


def gathered(chunks: Iterable[Tensor], num_frames: int, output_type: OutputType) -> Frames:
    """The chunks (3, n, H, W) in [-1, 1] of one video of ``num_frames``, as one of the output types.

    Pictures never lie in memory as floating-point numbers together; arrays and tensors do, once.
    """
    if output_type == "pil":
        return [[Image.fromarray(picture) for chunk in chunks for picture in to_uint8(chunk[None])[0]]]
    frames, done = torch.empty(0), 0
    for chunk in chunks:
        if not done:
            frames = torch.empty(1, num_frames, *chunk.shape[:1], *chunk.shape[2:])
        frames[0, done : done + chunk.shape[1]] = ((chunk + 1) / 2).clamp(0, 1).transpose(0, 1)
        done += chunk.shape[1]
    return frames if output_type == "pt" else frames.permute(0, 1, 3, 4, 2).numpy()
