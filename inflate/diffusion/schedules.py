"""How much signal and noise there is at a time: alpha, sigma, log-SNR, the angle phi, and their inverses.

Conventions (VDM, arXiv:2204.03458, section 2; progressive distillation, arXiv:2202.00512, section 2): ``z = alpha x +
sigma eps`` with ``alpha^2 + sigma^2 = 1``, ``lambda = log(alpha^2 / sigma^2)`` falling in time, ``phi = atan2(sigma,
alpha)``. Functions keep the dtype they are given; use float64 where it matters.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.errors import InputError


@dataclass(frozen=True)
class Level:
    """The share of signal and of noise at some time, tensors of one shape."""

    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """``lambda = 2 (log alpha - log sigma)``; infinite at the ends."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def snr(self) -> Tensor:
        """``alpha^2 / sigma^2``; infinite where sigma is 0."""
        return (self.alpha / self.sigma).square()

    @property
    def angle(self) -> Tensor:
        """``phi = atan2(sigma, alpha)``, from 0 (clean) to pi/2 (noise); finite at both ends."""
        return torch.atan2(self.sigma, self.alpha)

    def like(self, sample: Tensor) -> "Level":
        """One level per first index of ``sample`` (or one for all), shaped to multiply it, in its dtype."""
        shape = (-1, *[1] * (sample.ndim - 1)) if self.alpha.ndim else ()
        return Level(self.alpha.to(sample).reshape(shape), self.sigma.to(sample).reshape(shape))


def from_log_snr(log_snr: Tensor) -> Level:
    """The level of a log-SNR: ``alpha^2 = sigmoid(lambda)``, ``sigma^2 = sigmoid(-lambda)``."""
    return Level(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


def from_angle(angle: Tensor) -> Level:
    """The level of an angle: ``alpha = cos(phi)``, ``sigma = sin(phi)``; exactly 0 and 1 at pi/2."""
    # cos(pi/2) is 6e-17 in float64, which would pass for a signal.
    return Level((math.pi / 2 - angle).sin(), angle.sin())


def from_alphas_cumprod(alphas_cumprod: Tensor) -> Level:
    """The level of diffusers' cumulative products, ``alpha^2``."""
    return Level(alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())


def cosine(time: Tensor) -> Level:
    """``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)`` for t from 0 (clean) to 1 (noise)."""
    return Level(((1 - time) * (math.pi / 2)).sin(), (time * (math.pi / 2)).sin())


def rectified_flow(time: Tensor) -> Level:
    """``alpha = 1 - t``, ``sigma = t``: not variance-preserving (rectified flow, arXiv:2209.03003, eq. 1)."""
    return Level(1 - time, time)


def linear_betas(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """DDPM's betas (arXiv:2006.11239, section 4), float64 (steps,)."""
    return torch.linspace(start, end, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Stable Diffusion's betas: linear in the square root, float64 (steps,)."""
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Improved DDPM's betas (arXiv:2102.09672, eq. 17), diffusers' ``squaredcos_cap_v2``, float64 (steps,)."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = ((time + offset) / (1 + offset) * (math.pi / 2)).cos().square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=largest)


def from_betas(betas: Tensor) -> Level:
    """The level after each discrete step: ``alpha^2 = prod(1 - beta)``."""
    return from_alphas_cumprod((1 - betas).cumprod(0))


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas whose last step leaves no signal (arXiv:2305.08891, algorithm 1): sqrt(alpha-bar) shifted and scaled.

    The first step keeps its alpha; the last one's becomes exactly 0.
    """
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    kept = root.square()
    return 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])


def of_scheduler(scheduler: Any) -> Level:
    """The levels at the training timesteps of a diffusers scheduler, float64 on the CPU; index them by timestep.

    Schedulers with ``alphas_cumprod`` are variance-preserving: (T,), timesteps 0 to T - 1. Those of flow matching have
    ``alpha = 1 - sigma``, and a timestep is ``T sigma`` however sigma was shifted: (T + 1,), timesteps 0 to T.

    Raises:
        InputError: the scheduler has neither.
    """
    kept = getattr(scheduler, "alphas_cumprod", None)
    name = type(scheduler).__name__
    # DPMSolver and its like keep alphas_cumprod also where they sample a flow.
    if "FlowMatch" in name or getattr(scheduler, "config", {}).get("use_flow_sigmas"):
        steps = int(scheduler.config["num_train_timesteps"])
        return rectified_flow(torch.arange(steps + 1, dtype=torch.float64) / steps)
    if isinstance(kept, Tensor):
        return from_alphas_cumprod(kept.detach().double().cpu())
    raise InputError(f"{name} says neither alphas_cumprod nor flow-matching sigmas; the schedule cannot be read.")


def level_at(levels: Level, timestep: "Tensor | float | int") -> Level:
    """The level at a timestep (any shape) of discrete ``levels`` (T,).

    Between two it is linear in the angle, or on rectified flow's line, where alpha and sigma themselves are linear.
    """
    position = torch.as_tensor(timestep, dtype=torch.float64).cpu().clamp(0, len(levels.alpha) - 1)
    below = position.floor().long()
    if bool((position == below).all()):
        return Level(levels.alpha[below], levels.sigma[below])
    above, share = (below + 1).clamp(max=len(levels.alpha) - 1), position - below
    preserving = bool((torch.hypot(levels.alpha, levels.sigma) - 1).abs().max() < 1e-6)
    if preserving:
        return from_angle(torch.lerp(levels.angle[below], levels.angle[above], share))
    return Level(*(torch.lerp(part[below], part[above], share) for part in (levels.alpha, levels.sigma)))
