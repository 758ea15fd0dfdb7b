"""The forward process a network was trained under, diffusion or flow matching, stated once for training and validation.

Everything is a function of numbers that are given (a uniform number and a noise for each clip), so that a clip's part
of an update does not depend on what shares its batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from inflate.bases.flow import dynamic_shift
from inflate.diffusion.weights import WEIGHTINGS, loss_weight, signal_to_noise
from inflate.errors import InputError, a, nearest

Density = Literal["auto", "uniform", "logit-normal"]
DENSITIES: tuple[str, ...] = ("auto", "uniform", "logit-normal")
_BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Their noise levels are not those of a variance-preserving process with a beta schedule, nor of flow matching.
_UNTRAINABLE = ("EDM", "Karras", "ScoreSdeV", "Cosine", "CMStochastic", "LCM", "TCD")


@dataclass(frozen=True)
class Noised:
    """Noisy samples and what is to be predicted of them, as the clean samples (B, ...); the rest is (B,)."""

    noisy: Tensor
    target: Tensor
    timestep: Tensor  # in the scheduler's units, 0 to ``num_train_timesteps``
    weight: Tensor  # factor on the squared error


class Process(ABC):
    """How clean samples become noisy ones, and how much each noise level counts."""

    @abstractmethod
    def times(self, uniform: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), (B,) -> times to train at (B,), larger being noisier."""

    @abstractmethod
    def levels(self, share: Tensor) -> Tensor:
        """Shares of the noise scale in [0, 1] (B,) -> the times there, whatever the training density."""

    @abstractmethod
    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Noised:
        """Clean samples and standard normal noise (B, ...) at ``times`` (B,)."""

    @abstractmethod
    def clean_of(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """The clean samples (B, ...) that a prediction means."""


def squared_errors(predicted: Tensor, noised: Noised, counts: Tensor | None = None) -> Tensor:
    """Weighted mean-squared error of each sample (B,), float32.

    ``counts`` broadcasts to the samples: 1 where the error is looked at, 0 elsewhere; all of it if None.
    """
    error = (predicted.float() - noised.target.float()).square()
    if counts is None:
        return error.flatten(1).mean(1) * noised.weight
    counts = counts.expand_as(error)
    return (error * counts).flatten(1).sum(1) / counts.flatten(1).sum(1) * noised.weight


class DiffusionProcess(Process):
    """A variance-preserving diffusion with discrete timesteps (DDPM, arXiv:2006.11239, eq. 4).

    ``z = alpha x + sigma eps``; the network predicts eps, ``v = alpha eps - sigma x`` (arXiv:2202.00512, section 4) or
    x, as the scheduler's config says.

    Training times are ``T (1 - (1 - u)^power)`` for uniform ``u``: 1 draws them evenly, more than 1 favours high noise,
    where the shape of a thing is decided.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        density: str = "auto",
        weighting: str = "auto",
        gamma: float = 5.0,
        power: float = 1.0,
    ) -> None:
        if power <= 0:
            raise InputError(f"options.timestep_power is {power}; it must be above 0.")
        self.config, self.power = dict(config), power
        self.scheduler: Any = DDPMScheduler(**config)
        self.prediction_type = str(self.scheduler.config["prediction_type"])
        self.steps = int(self.scheduler.config["num_train_timesteps"])
        self.density = "uniform" if density == "auto" else density
        # What the image model itself was trained with: the plain squared error of what it predicts.
        plain = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x"}[self.prediction_type]
        snr = signal_to_noise(self.scheduler.alphas_cumprod.double()).float()
        # By timestep, the factor on the squared error of what is predicted.
        self.weights = loss_weight(snr, plain if weighting == "auto" else weighting, self.prediction_type, gamma)

    def times(self, uniform: Tensor) -> Tensor:
        """Whole timesteps (B,)."""
        if self.density == "logit-normal":
            return self.levels(_logit_normal(uniform))
        return self.levels(uniform if self.power == 1 else 1 - (1 - uniform) ** self.power)

    def levels(self, share: Tensor) -> Tensor:
        """As :meth:`Process.levels`."""
        return (share * self.steps).long().clamp(0, self.steps - 1)

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Noised:
        """As :meth:`Process.noised`."""
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = {"epsilon": noise, "sample": clean}.get(self.prediction_type)
        if target is None:
            target = self.scheduler.get_velocity(clean, noise, times)
        return Noised(noisy, target, times, self.weights.to(times.device)[times])

    def clean_of(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """As :meth:`Process.clean_of`; where no signal is left, eps says nothing and the noisy sample over a small
        alpha comes back."""
        if self.prediction_type == "sample":
            return predicted
        shape = (-1,) + (1,) * (noisy.ndim - 1)
        alpha_bar = self.scheduler.alphas_cumprod.to(noisy)[times].view(shape)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction_type == "epsilon":
            return (noisy - sigma * predicted) / alpha.clamp(min=1e-3)
        return alpha * noisy - sigma * predicted


class FlowProcess(Process):
    """Rectified flow (arXiv:2403.03206): ``z = (1 - s) x + s eps`` and the network predicts ``eps - x``.

    Times are ``s`` in (0, 1). The density is logit-normal (section 3.1), then moved towards noise by ``shift``,
    ``s' = shift s / (1 + (shift - 1) s)`` (section 5.3.2), as the model's scheduler does when it samples.
    """

    def __init__(self, shift: float = 1.0, density: str = "auto", num_train_timesteps: int = 1000) -> None:
        if not (math.isfinite(shift) and shift > 0):
            raise InputError(f"The shift of the noise levels is {shift}; it must be a number above 0.")
        self.shift, self.steps = shift, num_train_timesteps
        self.density = "logit-normal" if density == "auto" else density

    def times(self, uniform: Tensor) -> Tensor:
        """Noise levels (B,) in (0, 1)."""
        return self.levels(_logit_normal(uniform) if self.density == "logit-normal" else uniform)

    def levels(self, share: Tensor) -> Tensor:
        """As :meth:`Process.levels`."""
        share = share.float()
        return (self.shift * share / (1 + (self.shift - 1) * share)).clamp(1e-3, 1.0)

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Noised:
        """As :meth:`Process.noised`; the timestep is the level times the scheduler's number of timesteps."""
        level = times.to(clean).view(-1, *[1] * (clean.ndim - 1))
        noisy = (1 - level) * clean + level * noise
        return Noised(noisy, noise - clean, times * self.steps, torch.ones_like(times))

    def clean_of(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """As :meth:`Process.clean_of`."""
        return noisy - times.to(noisy).view(-1, *[1] * (noisy.ndim - 1)) * predicted


def process_of(
    scheduler_config: Mapping[str, Any],
    kind: Literal["diffusion", "flow"],
    density: str = "auto",
    weighting: str = "auto",
    gamma: float = 5.0,
    tokens: int = 0,
) -> Process:
    """The process that a pipeline's scheduler belongs to.

    Args:
        scheduler_config: what ``scheduler_config.json`` says.
        kind: of the image model.
        density: of times in training: ``uniform``, ``logit-normal``, or ``auto`` for the image model's own kind.
        weighting: of noise levels, a name in ``WEIGHTINGS``; ``auto`` is the plain error of what is predicted.
        gamma: ceiling of ``min-snr``.
        tokens: of one picture, for schedulers that shift noise levels by resolution (FLUX).

    Raises:
        InputError: a scheduler whose noise levels nothing can be trained at, or unknown names.
    """
    if density not in DENSITIES:
        raise InputError(
            f"options.timestep_density is {density!r}{nearest(density, DENSITIES)}; use {', '.join(DENSITIES)}."
        )
    name = str(scheduler_config.get("_class_name", "DDPMScheduler"))
    if kind == "flow":
        if weighting != "auto":
            raise InputError(
                "options.weighting is for diffusion models; leave it out for one trained by flow matching."
            )
        return FlowProcess(flow_shift(scheduler_config, tokens), density)
    if weighting not in ("auto", *WEIGHTINGS):
        known = ("auto", *WEIGHTINGS)
        raise InputError(f"options.weighting is {weighting!r}{nearest(weighting, known)}; use {', '.join(known)}.")
    return DiffusionProcess(diffusion_config(scheduler_config, name), density, weighting, gamma)


def diffusion_config(scheduler_config: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """The noise levels of any diffusers scheduler of a variance-preserving diffusion, as ``DDPMScheduler`` takes them.

    Raises:
        InputError: it has none.
    """
    if any(word in name for word in _UNTRAINABLE) or "sigma_max" in scheduler_config or "FlowMatch" in name:
        raise InputError(
            f"Nothing can be trained under {a(name)}: its config names no beta schedule that the image model was "
            "trained with; put that of the original checkpoint (a DDIMScheduler or DDPMScheduler config, say) into the "
            "pipeline's scheduler folder."
        )
    config = {key: scheduler_config[key] for key in _BETAS if scheduler_config.get(key) is not None}
    if name == "UnCLIPScheduler":  # its betas follow from its class, arXiv:2102.09672, eq. 17
        config.setdefault("beta_schedule", "squaredcos_cap_v2")
    kind = config.setdefault("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise InputError(f"The scheduler's prediction type {kind!r} is none of {', '.join(_PREDICTIONS)}.")
    if scheduler_config.get("rescale_betas_zero_snr"):
        config["rescale_betas_zero_snr"] = True
    return config


def flow_shift(scheduler_config: Mapping[str, Any], tokens: int) -> float:
    """The factor by which noise levels are moved: the config's, or ``exp(mu)`` where it follows from the resolution."""
    if not scheduler_config.get("use_dynamic_shifting"):
        return float(scheduler_config.get("shift") or 1.0)
    return math.exp(dynamic_shift(scheduler_config, tokens))


def _logit_normal(uniform: Tensor) -> Tensor:
    """Uniform numbers -> logit-normal ones of location 0 and scale 1, by their quantiles."""
    return torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6)).sigmoid().float()
