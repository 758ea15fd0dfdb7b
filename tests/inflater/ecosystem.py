"""What the tests of other libraries on an inflated model share: models, inputs, and the two ways of calling."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from inflate.inflater import SCHEMES, InflatedModel, random_inputs
from tests.inflater.tiny_models import as_video

FRAMES = 3
VIDEOS = 2
SCHEME_NAMES = ("make-a-video", "animatediff-v2", "video-ldm", "lean", "tune-a-video")

both_models = pytest.mark.parametrize("name", ["sd15", "sdxl"])
# Every scheme and every model, but not each with each.
some_pairs = pytest.mark.parametrize(
    ("name", "scheme"), [*(("sd15", scheme) for scheme in SCHEME_NAMES), ("sdxl", "make-a-video")]
)
two_schemes = pytest.mark.parametrize("scheme", ["make-a-video", "tune-a-video"])
all_schemes = pytest.mark.parametrize("scheme", SCHEME_NAMES)


def with_equal_frames(value: Any) -> Any:
    """Everything that belongs to a frame, as in the first frame of its video."""
    if isinstance(value, dict):
        return {key: with_equal_frames(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_equal_frames(item) for item in value)
    return value[::FRAMES].repeat_interleave(FRAMES, dim=0) if isinstance(value, torch.Tensor) else value


def inputs_of(image_model: Any, scheme: str = "make-a-video", seed: int = 0) -> dict[str, Any]:
    """Inputs of VIDEOS * FRAMES pictures; equal ones in each video where the scheme is the identity only for these."""
    inputs = random_inputs(image_model, VIDEOS * FRAMES, None, torch.Generator().manual_seed(seed))
    return inputs if SCHEMES[scheme].starts_as_image_model else with_equal_frames(inputs)


def call(video_model: InflatedModel, inputs: dict[str, Any], frames: int = FRAMES) -> torch.Tensor:
    """The video model's answer for `inputs` of pictures, (B, C, F, H, W)."""
    rest = dict(inputs)
    sample, timestep = as_video(rest.pop("sample"), frames), rest.pop("timestep")
    fps = 8 if video_model.scheme.fps_range else None
    return video_model(sample, timestep, fps=fps, **rest).sample


def assert_frames_are(found: torch.Tensor, pictures: torch.Tensor, scheme: str) -> None:
    """`found` (B, C, F, H, W) holds `pictures`: bit for bit, or up to rounding where attention sees other frames."""
    expected = as_video(pictures, FRAMES)
    if SCHEMES[scheme].starts_as_image_model:
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def pipeline_of(name: str, unet: Any, scheduler: Any = None) -> Any:
    """diffusers' own image pipeline around `unet`, without the parts that a latent from an embedding does not need."""
    parts: dict[str, Any] = {"vae": None, "text_encoder": None, "tokenizer": None, "scheduler": scheduler, "unet": unet}
    if name == "sdxl":
        parts |= {"text_encoder_2": None, "tokenizer_2": None, "add_watermarker": False}
        return StableDiffusionXLPipeline(**parts)
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**parts)
