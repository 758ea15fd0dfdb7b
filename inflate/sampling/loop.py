"""The loop that all samplers share: a diffusers scheduler from noise to a clean sample."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inflate.errors import InputError

Generators = torch.Generator | Sequence[torch.Generator] | None
OnSample = Callable[[int, Tensor, Tensor], Tensor]
"""(step, timestep, sample) -> the sample to go on with; called after each step."""


def for_steps(scheduler: Any, num_inference_steps: int, device: torch.device | None = None) -> Any:
    """A fresh copy of a diffusers scheduler with its timesteps set; ``InputError`` if it refuses so many steps."""
    scheduler = type(scheduler).from_config(scheduler.config)
    try:
        scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, ZeroDivisionError) as error:
        name = type(scheduler).__name__
        raise InputError(f"{name} cannot sample in {num_inference_steps} steps: {error}.") from error
    return scheduler


def denoise(
    scheduler: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_inference_steps: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    begin: Callable[[Any, Tensor], tuple[int, Tensor]] | None = None,
) -> Tensor:
    """Run a diffusers scheduler from ``noise`` to a clean sample of the same shape.

    Args:
        scheduler: any diffusers scheduler; it is copied, so that it can be shared.
        predict: (sample, timestep) -> what the network predicts, in the scheduler's prediction type.
        noise: standard normal, float32.
        num_inference_steps: how many steps.
        generator: for schedulers that draw noise at each step.
        on_step: called after each step with (step, timestep, sample); what it returns replaces the sample.
        begin: (scheduler, noise) -> number of the first step and the sample there, where that is not the noise.

    Raises as :func:`for_steps`.
    """
    scheduler = for_steps(scheduler, num_inference_steps, noise.device)
    parameters = inspect.signature(scheduler.step).parameters
    timesteps = scheduler.timesteps
    options: dict[str, Any] = {}
    if "generator" in parameters:
        options["generator"] = list(generator) if isinstance(generator, Sequence) else generator
    if "eta" in parameters:
        options["eta"] = 0.0  # as diffusers' pipelines have it, also where a scheduler by itself takes another (TCD)
    # Flow-matching schedulers have neither: their samples start as the noise and go into the network as they are.
    first, sample = 0, noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if begin is not None:
        first, sample = begin(scheduler, noise)
    scale = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    for step, timestep in enumerate(timesteps[first:], first):
        prediction = predict(scale(sample, timestep), timestep)
        if "prev_timestep" in parameters:
            # UnCLIPScheduler takes t - 1 unless told otherwise (Karlo skips timesteps).
            options["prev_timestep"] = timesteps[step + 1] if step + 1 < len(timesteps) else None
        sample = scheduler.step(prediction, timestep, sample, **options).prev_sample
        if on_step is not None:
            sample = on_step(step, timestep, sample)
    return sample
