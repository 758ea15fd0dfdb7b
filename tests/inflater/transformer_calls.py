"""Image transformers and their video models called alike, at a tiny size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.inflater import (
    SCHEMES,
    InflatedModel,
    random_inputs,
)
from tests.inflater.tiny_models import TRANSFORMERS, as_video

FRAMES = 4
VIDEOS = 2
SIZE = 8
TRUE_CONFIGS = Path(__file__).parent / "configs"
ALL_FRAMES = SCHEMES["spacetime-dit"].changed(patch_frames=1, position="none")
EXACT = ("latte", "vdm", "lean")
every_model = pytest.mark.parametrize("name", TRANSFORMERS)
# every class, and what differs inside one: joint blocks with a second attention
CLASSES = ("dit", "pixart-alpha", "sd35", "flux-dev", "sana", "qwen-image", "lumina2", "z-image", "flux2-dev")
CLASSES += ("aura-flow", "hunyuan-dit", "hidream-experts")
each_class = pytest.mark.parametrize("name", CLASSES)
PLAIN = ("dit", "pixart-alpha", "sana", "hunyuan-dit")  # text and picture do not attend together


def inputs_of(image_model: Any, pictures: int = VIDEOS * FRAMES, seed: int = 0) -> dict[str, Any]:
    return random_inputs(image_model, pictures, (SIZE, SIZE), torch.Generator().manual_seed(seed))


def per_video(value: Any, frames: int = FRAMES) -> Any:
    """What each video's first frame has, (B, ...)."""
    if isinstance(value, dict):
        return {key: per_video(item, frames) for key, item in value.items()}
    if isinstance(value, list):
        return [per_video(item, frames) for item in value]
    return value[::frames]


def spread(value: Any, frames: int = FRAMES) -> Any:
    """Per video to per frame."""
    if isinstance(value, dict):
        return {key: spread(item, frames) for key, item in value.items()}
    if isinstance(value, list):
        return [spread(item, frames) for item in value]
    return value.repeat_interleave(frames, dim=0)


def call(video_model: InflatedModel, inputs: dict[str, Any], frames: int = FRAMES) -> Tensor:
    rest = dict(inputs)
    sample, timestep = as_video(rest.pop("sample"), frames), rest.pop("timestep")
    fps = 8 if video_model.scheme.fps_range else None
    output = video_model(sample, timestep, fps=fps, **rest)
    assert type(output).__name__ == "Transformer2DModelOutput"
    return output.sample
