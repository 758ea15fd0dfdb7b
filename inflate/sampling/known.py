"""Drawing the unknown part of a video with an unchanged D^t: replacement, reconstruction guidance, and a corrector.

Any diffusers scheduler does it. What the network predicts is read as a clean sample, guided, its known frames set to
what they are, and handed on in the scheduler's own prediction type. A step from there leaves the known frames at a draw
of ``q(z_s | z_t, x^a)`` by the scheduler's own rule (for deterministic ones, ``alpha_s x^a + sigma_s eps`` with the
noise they started from), as correlated with the unknown frames' noise as the model was trained: replacement.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.diffusion.conversions import from_x, to_x
from inflate.diffusion.reconstruction import (
    Constraint,
    draw_known,
    langevin_step,
    reconstruction_guidance,
    spread_errors,
)
from inflate.diffusion.schedules import Level, level_at, of_scheduler, rectified_flow
from inflate.errors import InputError
from inflate.sampling.loop import denoise

Predict = Callable[[Tensor, Tensor], Tensor]
"""(sample (B, c, F, h, w), timestep) to what the network predicts, with a predicted variance behind it or without."""


@dataclass(frozen=True)
class Known:
    """What is known of a video, in the space of the model's samples.

    Attributes:
        frames: (B, c, F, h, w); what unknown frames hold is not read.
        mask: (F,) bool, True where a frame is known.
        constraints: what reconstruction guidance holds the sample to; see :mod:`inflate.diffusion.reconstruction`.
            Without any, known frames are replaced and nothing else is done.
        covariance: of the network's errors between frames (F, F), by which those of known frames are spread to unknown
            ones, ``weight`` times; see ``spread_errors``. None does not.
        weight: ``w_r`` of that; constraints have their own.
    """

    frames: Tensor
    mask: Tensor
    constraints: Sequence[Constraint] = ()
    covariance: Tensor | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or tuple(self.mask.shape) != (self.frames.shape[2],):
            raise InputError(
                f"The mask of known frames must be bool of shape ({self.frames.shape[2]},), got {self.mask.dtype} "
                f"of shape {tuple(self.mask.shape)}."
            )


@dataclass(frozen=True)
class Corrector:
    """Langevin steps after each of the sampler's, of size ``size`` (the paper's delta is 0.1)."""

    steps: int = 1
    size: float = 0.1


def scheduler_level(scheduler: Any, timestep: Tensor) -> Level:
    """The level of a diffusers scheduler at one of its timesteps; flow matching's timestep is ``sigma`` itself."""
    flows = "FlowMatch" in type(scheduler).__name__ or prediction_type(scheduler) == "flow_prediction"
    if flows:
        return rectified_flow(timestep.detach().double().cpu() / int(scheduler.config["num_train_timesteps"]))
    return level_at(of_scheduler(scheduler), timestep.detach())


def prediction_type(scheduler: Any) -> str:
    """What the network behind a scheduler predicts."""
    if "FlowMatch" in type(scheduler).__name__:
        return "flow_prediction"
    return str(scheduler.config.get("prediction_type", "epsilon"))


def sample_known(
    predict: Predict,
    scheduler: Any,
    noise: Tensor,
    known: Known,
    *,
    num_inference_steps: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    corrector: Corrector | None = None,
    draw: Callable[[], Tensor] | None = None,
    redraw: bool = False,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Draw the unknown frames of videos; the known ones come back as they were given.

    Args:
        predict: see ``Predict``; guidance by text or embedding is its own business.
        scheduler: any diffusers scheduler of the network's prediction type.
        noise: standard normal (B, c, F, h, w), correlated between frames as the model was trained.
        known: what is known.
        num_inference_steps: of the scheduler.
        generator: for schedulers that draw noise at each step.
        corrector: Langevin steps after each step but the last; see ``Corrector``.
        draw: new noise as ``noise``; the corrector and ``redraw`` need it.
        redraw: overwrite known frames after each step by ``q(z_s | x^a)`` with new noise, as the replacement method is
            usually written down.
        on_step: called with (step, timestep, sample); what it returns replaces the sample.

    Raises:
        InputError: ``corrector`` or ``redraw`` with a scheduler whose samples do not keep their variance.
    """
    solver = _Guided(predict, scheduler, known, corrector, draw, redraw)
    timesteps: list[Tensor] = []

    def after(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
        if not timesteps:
            fresh = type(scheduler).from_config(scheduler.config)
            fresh.set_timesteps(num_inference_steps, device=noise.device)
            timesteps.extend(fresh.timesteps)
        if step + 1 < len(timesteps):
            sample = solver.correct(sample, timesteps[step + 1])
        return sample if on_step is None else on_step(step, timestep, sample)

    with torch.no_grad():
        made = denoise(scheduler, solver.predict, noise, num_inference_steps, generator, after)
    return torch.where(solver.mask, known.frames.to(made), made)


class _Guided:
    """A network's predictions, brought to agree with what is known."""

    def __init__(
        self,
        predict: Predict,
        scheduler: Any,
        known: Known,
        corrector: Corrector | None,
        draw: Callable[[], Tensor] | None,
        redraw: bool,
    ) -> None:
        if (corrector is not None or redraw) and (
            draw is None or float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1
        ):
            raise InputError(
                f"A corrector and new noise for known frames need a scheduler whose samples keep their variance; a "
                f"{type(scheduler).__name__}'s do not: use DDIM or DPM-Solver++, or leave them out."
            )
        self.network, self.scheduler, self.known = predict, scheduler, known
        self.corrector, self.draw, self.redraw = corrector, draw, redraw
        self.kind = prediction_type(scheduler)
        self.mask = known.mask[None, None, :, None, None].to(known.frames.device)

    def predict(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What the scheduler gets."""
        level = scheduler_level(self.scheduler, timestep)
        x, rest = self._x(sample, timestep, level)
        return torch.cat([from_x(sample, x, level, self.kind), rest], dim=1)

    def correct(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What happens between two steps."""
        if self.draw is None or (self.corrector is None and not self.redraw):
            return sample
        level = scheduler_level(self.scheduler, timestep)
        for _ in range(0 if self.corrector is None else self.corrector.steps):
            assert self.corrector is not None
            x, _ = self._x(sample, timestep, level)
            sample = langevin_step(sample, x, level, self.draw(), self.corrector.size)
        if self.redraw:
            drawn = draw_known(self.known.frames.to(sample), level, self.draw())
            sample = torch.where(self.mask, drawn, sample)
        return sample

    def _x(self, sample: Tensor, timestep: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The clean sample, guided, its known frames as they are; and the channels of variance that came with it."""
        channels, rest = sample.shape[1], []

        def denoiser(z: Tensor) -> Tensor:
            made = self.network(z, timestep)
            rest.append(made[:, channels:].detach())
            return to_x(z, made[:, :channels], level, self.kind)

        guided = reconstruction_guidance(denoiser, sample, level, self.known.constraints, ~self.mask).guided
        known = self.known
        if known.covariance is not None and known.mask.any() and known.weight:
            guided = spread_errors(guided, known.frames, known.mask, known.covariance, known.weight)
        return torch.where(self.mask, self.known.frames.to(guided), guided), rest[0]


@contextmanager
def saving_memory(model: Any, wanted: bool = True) -> Iterator[None]:
    """Gradient checkpointing of a network, for as long as this lasts."""
    inner = getattr(model, "image_model", model)
    switch = (
        wanted and getattr(inner, "_supports_gradient_checkpointing", False) and not inner.is_gradient_checkpointing
    )
    if switch:
        inner.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if switch:
            inner.disable_gradient_checkpointing()
