"""Stages of a chain as the methods that the measures compare: clips ``(1, 3, F, S, S)`` in [0, 1] in and out.

Each stage runs by its own defaults, as in the chain, and knows of the true clip no more than it would there.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inflate.evaluate.interpolation import REFERENCES, Interpolate
from inflate.evaluate.super_resolution import BICUBIC, Upscale, bicubic, shrink_clip
from inflate.stages import ChainState, StageSettings
from inflate.video import to_uint8

Rows = dict[str, np.ndarray]
"""Frames uint8 ``(F, H, W, 3)`` by label, for a contact sheet."""


def interpolator(
    stage: Any, settings: StageSettings | None = None, embed: Callable[[Tensor], Tensor] | None = None
) -> Interpolate:
    """↑F, told the known frames and their mean image embedding.

    Args:
        stage: a loaded interpolation stage.
        settings: how it samples; its defaults by default.
        embed: frames (1, 3, F, S, S) in [-1, 1] to the mean of their image embeddings (1, D); None is no condition.
    """

    def interpolate(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
        frames = clip * 2 - 1
        state = ChainState(
            (),
            (seed,),
            clip.shape[2],
            fps,
            image_embeds=None if embed is None else embed(frames[:, :, known]),
            frames=frames,
            frame_skip=1,
            known_frames=known,
        )
        return _frames_of(stage, state, settings)

    return interpolate


def upscaler(stage: Any, settings: StageSettings | None = None) -> Upscale:
    """SR_l^t or SR_h; arguments as for :func:`interpolator`."""

    def upscale(low: Tensor, fps: float, seed: int) -> Tensor:
        state = ChainState((), (seed,), low.shape[2], fps, frames=low * 2 - 1, frame_skip=1)
        return _frames_of(stage, state, settings)

    return upscale


def without_component(stage: Any, role: str) -> Any:
    """A loaded stage without one of its components, which it can do without; the others are the very same."""
    components = {name: part for name, part in stage.components.items() if name != role}
    return type(stage)(components, defaults=stage.defaults, config=stage.config)


def with_config(stage: Any, **changes: Any) -> Any:
    """A loaded stage of the same components under a configuration that differs."""
    return type(stage)(stage.components, defaults=stage.defaults, config=replace(stage.config, **changes))


def _frames_of(stage: Any, state: ChainState, settings: StageSettings | None) -> Tensor:
    with torch.no_grad():
        made = stage(state, settings or stage.defaults, lambda video, step, time, sample, share=None: sample)
    return (made.frames + 1) / 2


def interpolation_rows(methods: Mapping[str, Interpolate], clip: Tensor, skip: int, fps: float, seed: int) -> Rows:
    """The true clip, and what each reference and method makes of every ``skip``-th frame of it."""
    known = torch.arange(clip.shape[2]) % skip == 0
    told = torch.where(known[None, None, :, None, None], clip, 0)
    made = {name: method(told, known, fps, seed) for name, method in (REFERENCES | dict(methods)).items()}
    return {"true frames": _pixels(clip), **{name: _pixels(frames) for name, frames in made.items()}}


def super_resolution_rows(
    methods: Mapping[str, Upscale],
    clip: Tensor,
    scale: int,
    fps: float,
    seed: int,
    degrade: Callable[[Tensor], Tensor] | None = None,
) -> Rows:
    """The true clip, its bicubic enlargement from 1 / ``scale`` of its size, and that by each method."""
    low = shrink_clip(clip, scale) if degrade is None else degrade(shrink_clip(clip, scale))
    made = {name: method(low, fps, seed) for name, method in methods.items()}
    rows = {"true frames": clip, BICUBIC: bicubic(low, scale), **made}
    return {name: _pixels(frames) for name, frames in rows.items()}


def _pixels(clip: Tensor) -> np.ndarray:
    """``(1, 3, F, H, W)`` in [0, 1] to uint8 ``(F, H, W, 3)``."""
    return to_uint8(clip.float().cpu() * 2 - 1)[0]
