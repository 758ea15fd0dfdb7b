"""Guidance as a stage's settings ask for it, bound to a diffusers scheduler; and thresholding of what is predicted."""

from typing import Any

import torch
from torch import Tensor

from inflate.diffusion.conversions import from_x, to_x
from inflate.diffusion.guidance import Guidance, GuidanceOptions, dynamic_threshold
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.known_frames import Predict, prediction_type, scheduler_level
from inflate.stages import StageSettings, for_steps


def guidance_of(scale: float, options: GuidanceOptions, scheduler: Any, num_inference_steps: int) -> Guidance:
    """Guidance for sampling with a diffusers scheduler in so many steps."""
    if options.guidance_oscillate is None:
        return Guidance(scale, options.guidance_rescale)
    timesteps = tuple(float(timestep) for timestep in for_steps(scheduler, num_inference_steps).timesteps)
    return Guidance(scale, options.guidance_rescale, options.guidance_oscillate, timesteps)


def needs_both(settings: StageSettings) -> bool:
    """Whether a stage's guidance needs predictions without the condition, at some step at least."""
    return settings.guidance_scale != 1 or settings.guidance_oscillate not in (None, 1)


def check_both(settings: StageSettings, network: str) -> None:
    """``InputError`` for guidance that needs predictions without the prompt, of a network that makes none."""
    if settings.guidance_oscillate is not None or settings.guidance_rescale:
        raise InputError(
            "guidance_rescale and guidance_oscillate change predictions with and without the prompt, and "
            f"{network} has its guidance in its weights; leave them out."
        )


def thresholded(predict: Predict, scheduler: Any, quantile: float | None) -> Predict:
    """``predict`` with the clean samples it means thresholded (E12), one number per video; None is ``predict`` itself.

    Channels of variance behind the prediction stay as they are.
    """
    if quantile is None:
        return predict
    kind = prediction_type(scheduler)

    def bounded(sample: Tensor, timestep: Tensor) -> Tensor:
        made, channels = predict(sample, timestep), sample.shape[1]
        level = scheduler_level(scheduler, timestep)
        x = dynamic_threshold(to_x(sample, made[:, :channels], level, kind), quantile)
        return torch.cat([from_x(sample, x, level, kind), made[:, channels:]], dim=1)

    return bounded


def check_threshold(options: GuidanceOptions, vae: Any | None) -> None:
    """``InputError`` for thresholding of a decoder that draws latents, whose values lie beyond [-1, 1]."""
    if options.threshold is not None and vae is not None:
        raise InputError(
            "threshold brings pixels into [-1, 1], and this decoder draws latents, which lie beyond; leave it out "
            "(guidance_rescale does work for latents)."
        )


def check_fps(model: Any, fps: float) -> None:
    """``InputError`` unless the model was trained for this frame rate, or has no use for it."""
    fps_range = model.scheme.fps_range if isinstance(model, InflatedModel) else None
    if fps_range is not None and not fps_range[0] <= fps <= fps_range[1]:
        raise InputError(f"fps is {fps:g}; this model was trained for {fps_range[0]:g} to {fps_range[1]:g}.")
