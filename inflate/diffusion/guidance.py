"""Guidance of samplers: classifier-free, its rescaled form, its schedule in time, and dynamic thresholding.

The scale is diffusers' ``g``: ``uncond + g (cond - uncond)``, so that 1 is no guidance. Papers that write
``(1 + w) cond - w uncond`` (VDM, arXiv:2204.03458; Imagen Video, arXiv:2210.02303) mean ``w = g - 1``. The form is
linear, so it is the same for predictions of x, eps and v of one noisy sample.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.errors import InputError


def classifier_free(unconditional: Tensor, conditional: Tensor, scale: float | Tensor) -> Tensor:
    """``uncond + g (cond - uncond)`` (E8); the number 1 is ``conditional`` itself, bit for bit.

    A tensor has a scale for each sample, or any shape that goes with theirs.
    """
    if not isinstance(scale, Tensor) and scale == 1:
        return conditional
    return unconditional + scale * (conditional - unconditional)


def rescaled(guided: Tensor, conditional: Tensor, share: float = 0.7) -> Tensor:
    """Guided x, eps or v with its deviation brought back towards that of the conditional prediction.

    ``share phi (std(cond) / std(guided)) guided + (1 - phi) guided`` (arXiv:2305.08891, section 3.4, eq. 15 and 16),
    deviations over all of a sample but the batch.

    Raises:
        InputError: ``share`` outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"The share of rescaled guidance is {share}; it must lie between 0 and 1.")
    over = tuple(range(1, guided.ndim))
    wanted, have = conditional.std(dim=over, keepdim=True), guided.std(dim=over, keepdim=True)
    factor = torch.where(have > 0, wanted / have.clamp(min=torch.finfo(have.dtype).tiny), torch.ones_like(have))
    return guided * (share * factor + 1 - share)


@dataclass(frozen=True)
class OscillatingGuidance:
    """A scale that is high for the first steps, then high and low by turns (Imagen Video, arXiv:2210.02303, sec. 2.6).

    Constantly high guidance saturates; low steps between let the sample come back.

    Attributes:
        high: the scale of the first steps and of every other one after.
        low: that of the steps between.
        first: share of the steps, from 0 to 1, that stay high at the start.
    """

    high: float = 15.0
    low: float = 1.0
    first: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.first <= 1:
            raise InputError(f"The first share of oscillating guidance is {self.first}; it must lie between 0 and 1.")

    def scale(self, step: int, steps: int) -> float:
        """The scale of ``step`` (from 0) of ``steps``.

        Raises:
            InputError: no such step.
        """
        if not 0 <= step < steps:
            raise InputError(f"There is no step {step} of {steps}; they count from 0.")
        start = round(self.first * steps)
        return self.high if step < start or (step - start) % 2 else self.low


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions:
    """What a sampler may do beside guidance of one scale; the defaults do nothing.

    Attributes:
        guidance_rescale: share phi, from 0 to 1, of :func:`rescaled`; diffusers' option of that name.
        guidance_oscillate: the low scale of :class:`OscillatingGuidance`, whose high one is the usual scale.
        threshold: the quantile of :func:`dynamic_threshold`, such as 0.995; for models of pixels.
    """

    guidance_rescale: float = 0.0
    guidance_oscillate: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        low, quantile = self.guidance_oscillate, self.threshold
        if not 0 <= self.guidance_rescale <= 1:
            raise InputError(f"guidance_rescale must lie between 0 and 1, got {self.guidance_rescale}.")
        if low is not None and not 0 <= low <= 100:
            raise InputError(f"guidance_oscillate, the low scale, must lie between 0 and 100, got {low}.")
        if quantile is not None and not 0 < quantile <= 1:
            raise InputError(f"threshold, a quantile, must be above 0 and at most 1, got {quantile}.")


@dataclass(frozen=True)
class Guidance:
    """How predictions without and with the condition become one: every sampler of the house combines them here.

    Attributes:
        scale: ``g``, see :func:`classifier_free`; with ``low`` the high one.
        rescale: share of :func:`rescaled`, over what the network predicts at once: a video, or a window of a long one.
        low: of oscillating guidance; None is ``scale`` at every step.
        timesteps: the sampler's, in order; ``low`` needs them.
    """

    scale: float = 1.0
    rescale: float = 0.0
    low: float | None = None
    timesteps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert self.low is None or self.timesteps, "what step a timestep is must be known"
        # Solvers of second order come by a timestep twice.
        object.__setattr__(self, "timesteps", tuple(dict.fromkeys(self.timesteps)))

    @property
    def scales(self) -> tuple[float, ...]:
        """Every scale that a step may have."""
        return (self.scale,) if self.low is None else (self.scale, self.low)

    @property
    def needs_both(self) -> bool:
        """Whether the prediction without the condition is needed at all."""
        return any(scale != 1 for scale in self.scales)

    def scale_at(self, timestep: Any) -> float:
        """The scale of the step at ``timestep``, a number or a tensor of one; the nearest step's if there is none."""
        if self.low is None:
            return self.scale
        steps, at = self.timesteps, float(timestep)
        step = min(range(len(steps)), key=lambda number: abs(steps[number] - at))
        return OscillatingGuidance(self.scale, self.low).scale(step, len(steps))

    def __call__(self, unconditional: Tensor, conditional: Tensor, timestep: Any) -> Tensor:
        """The guided prediction of the step at ``timestep``; both are of one kind (x, eps or v) and shape (B, ...)."""
        scale = self.scale_at(timestep)
        guided = classifier_free(unconditional, conditional, scale)
        return rescaled(guided, conditional, self.rescale) if self.rescale and scale != 1 else guided


def dynamic_threshold(x: Tensor, quantile: float = 0.995) -> Tensor:
    """Dynamic thresholding of clean samples (B, ...): ``clip(x, -s, s) / s``, ``s = max(1, quantile(|x|))`` (E12).

    After Imagen (arXiv:2205.11487, section 2.3). ``s`` is one number per video, over channels, frames and pixels
    together: one per frame would flicker. diffusers' ``sample_max_value`` caps ``s`` at 1 by default, a plain clip;
    here nothing caps it. For pixel models, whose clean samples lie in [-1, 1].

    Raises:
        InputError: ``quantile`` outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"The quantile of dynamic thresholding is {quantile}; it must lie between 0 and 1.")
    sizes = x.detach().abs().flatten(1)
    # torch.quantile takes 16 million numbers at most, less than a long video has: linear between neighbours in order.
    ordered = sizes.to(torch.promote_types(x.dtype, torch.float32)).sort(dim=1).values
    position = quantile * (ordered.shape[1] - 1)
    below = int(position)
    above = min(below + 1, ordered.shape[1] - 1)
    limit = torch.lerp(ordered[:, below], ordered[:, above], position - below).clamp(min=1)
    limit = limit.to(x).reshape(-1, *[1] * (x.ndim - 1))
    return torch.minimum(torch.maximum(x, -limit), limit) / limit
