"""What a user hands to a cascade, checked and brought into the shapes that stages take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inflate.data.decode import fit_size
from inflate.data.reading.pictures import as_looked_at
from inflate.errors import InputError
from inflate.models.beginning import drawn_pixels
from inflate.stages import ChainState, Segment
from inflate.video import Video, from_uint8

Picture = Image.Image | np.ndarray | Tensor
"""A PIL picture, uint8 (H, W, 3), or float (3, H, W) in [0, 1]."""
Generators = torch.Generator | Sequence[torch.Generator] | None
Segments = Sequence[Segment | tuple[float, str]]
"""What a video shows later on: (seconds, prompt), or with a transition of another length, a ``Segment``."""

MAX_FRAMES = 1024  # of a video in memory
_MAX_SIDE = 8192


@dataclass(frozen=True)
class Timing:
    """Number of frames, frames per second, and how many times ↑F multiplies the frame rate."""

    num_frames: int
    fps: float
    frame_skip: int
    max_frames: int = MAX_FRAMES

    def __post_init__(self) -> None:
        if isinstance(self.num_frames, bool) or not isinstance(self.num_frames, int):
            raise InputError(f"num_frames must be a whole number from 1 to {self.max_frames}, got {self.num_frames!r}.")
        if not 1 <= self.num_frames <= self.max_frames:
            raise InputError(f"num_frames must be a whole number from 1 to {self.max_frames}, got {self.num_frames}.")
        if not (math.isfinite(self.fps) and 0 < self.fps <= 1000):
            raise InputError(f"fps must be above 0 and at most 1000, got {self.fps}.")
        if isinstance(self.frame_skip, bool) or not isinstance(self.frame_skip, int) or not 1 <= self.frame_skip <= 64:
            raise InputError(f"frame_skip must be a whole number from 1 (no new frames) to 64, got {self.frame_skip}.")


def first_state(
    prompt: str | Sequence[str] | None,
    image_embeds: Tensor | None,
    timing: Timing,
    generator: Generators,
    segments: Segments = (),
    told_nothing: bool = False,
) -> ChainState:
    """The state of a chain that starts from prompts or from image embeddings (B, D), or is told nothing at all."""
    if told_nothing:
        return _untold_state(prompt, image_embeds, timing, generator, segments)
    prompts = () if prompt is None else (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if (not prompts) == (image_embeds is None):
        raise InputError("Give a prompt or image_embeds, and not both.")
    if any(not isinstance(text, str) or not text.strip() for text in prompts):
        raise InputError("A prompt is empty; say in a few words what the video should show.")
    if segments and image_embeds is not None:
        raise InputError("Segments follow a prompt; give a prompt instead of image_embeds.")
    count = len(prompts) if image_embeds is None else len(image_embeds)
    seeds = draw_seeds(generator, count)
    return ChainState(
        prompts,
        seeds,
        timing.num_frames,
        float(timing.fps),
        image_embeds=image_embeds,
        frame_skip=timing.frame_skip,
        segments=tuple(one if isinstance(one, Segment) else Segment(*one) for one in segments),
    )


def begun(state: ChainState, decoder: Any, picture: Picture | None, strength: float) -> ChainState:
    """The state with a picture that every frame of the decoder begins as, its centre cut to the frames' shape."""
    if not (isinstance(strength, int | float) and 0 < strength <= 1):
        raise InputError(f"strength is {strength}; it must be above 0 (hardly any change) and at most 1.")
    if picture is None:
        return state
    if decoder is None:
        raise InputError("This cascade has no decoder, whose frames could begin as a picture.")
    frames = picture_frames(picture, drawn_pixels(decoder))
    return replace(state, init_image=frames[:, :, 0], strength=float(strength))


def _untold_state(
    prompt: Any, image_embeds: Tensor | None, timing: Timing, generator: Generators, segments: Segments
) -> ChainState:
    """Of a chain whose decoder is told nothing: one video, or one per generator."""
    if prompt is not None or image_embeds is not None or segments:
        raise InputError("This model is told nothing of what to show, so a prompt would change nothing; leave it out.")
    count = len(generator) if isinstance(generator, Sequence) else 1
    seeds = draw_seeds(generator, count)
    return ChainState(("",) * count, seeds, timing.num_frames, float(timing.fps), frame_skip=timing.frame_skip)


def draw_seeds(generator: Generators, count: int) -> tuple[int, ...]:
    """One seed per video, from one generator or from one each.

    Raises:
        InputError: another number of generators than of videos.
    """
    if isinstance(generator, Sequence) and len(generator) != count:
        raise InputError(f"{count} videos need one generator, or as many; got {len(generator)}.")
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * count
    return tuple(_draw_seed(one) for one in generators)


def _draw_seed(generator: torch.Generator | None) -> int:
    device = None if generator is None else generator.device
    return int(torch.randint(0, 2**62, (), generator=generator, device=device, dtype=torch.int64))


def picture_frames(picture: Picture, size: tuple[int, int] | None) -> Tensor:
    """A picture as a video of one frame, (1, 3, 1, H, W) float32 in [-1, 1]; the centre, where shapes differ.

    Args:
        picture: see ``Picture``; transparency is composited on white.
        size: height and width in pixels; None keeps the picture's own.

    Raises:
        InputError: not a picture, or larger than 8,192 pixels on a side.
    """
    opaque = as_looked_at(_as_pil(picture))
    return from_uint8(np.asarray(opaque if size is None else fit_size(opaque, *size))[None, None])


def picture_size(picture: Picture) -> tuple[int, int]:
    """Height and width of a picture as it is looked at; raises as :func:`picture_frames`."""
    looked_at = as_looked_at(_as_pil(picture))
    return looked_at.height, looked_at.width


def video_frames(video: Video, size: tuple[int, int] | None) -> Tensor:
    """A video's frames, (1, 3, F, H, W) float32 in [-1, 1], as :func:`picture_frames` makes them."""
    if size is None or (video.height, video.width) == size:
        return from_uint8(video.frames[None])
    return torch.cat([picture_frames(frame, size) for frame in video.frames], dim=2)


def _as_pil(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        found = picture
    elif isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        found = Image.fromarray(picture)
    elif isinstance(picture, Tensor) and picture.is_floating_point() and picture.ndim == 3 and picture.shape[0] == 3:
        levels = (picture.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
        found = Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))
    else:
        what = f"{getattr(picture, 'dtype', type(picture).__name__)} {tuple(getattr(picture, 'shape', ()))}"
        raise InputError(f"A picture must be a PIL picture, uint8 (H, W, 3) or float (3, H, W) in [0, 1]; got {what}.")
    if not 1 <= min(found.size) <= max(found.size) <= _MAX_SIDE:
        raise InputError(
            f"The picture has {found.width} x {found.height} pixels; make it smaller, {_MAX_SIDE} at most on each side."
        )
    return found
