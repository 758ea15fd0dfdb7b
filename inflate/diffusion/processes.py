"""The distributions between two times s < t (s is the cleaner), and the steps that go from t to s.

Equation numbers E1 to E11 are those of ``docs/diffusion.md``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from inflate.diffusion.schedules import Level


class Normal(NamedTuple):
    """A normal distribution with one variance for all elements."""

    mean: Tensor
    variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """``mean + sqrt(variance) noise`` for standard normal ``noise``."""
        return self.mean + self.variance.clamp(min=0).sqrt() * noise


def marginal(x: Tensor, at: Level) -> Normal:
    """E1, ``q(z_t | x) = N(alpha_t x, sigma_t^2)`` (arXiv:2204.03458, eq. 1)."""
    at = at.like(x)
    return Normal(at.alpha * x, at.sigma.square())


def _gap(s: Level, t: Level) -> Tensor:
    """``alpha_s^2 sigma_t^2 - alpha_t^2 sigma_s^2`` as a product, which does not cancel where s comes near t."""
    up, down = s.alpha * t.sigma, t.alpha * s.sigma
    return ((up - down) * (up + down)).clamp(min=0)


def forward_variance(s: Level, t: Level) -> Tensor:
    """``sigma_{t|s}^2 = (1 - e^(lambda_t - lambda_s)) sigma_t^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2``."""
    return _gap(s, t) / s.alpha.square()


def forward(z_s: Tensor, s: Level, t: Level) -> Normal:
    """E2, ``q(z_t | z_s) = N((alpha_t / alpha_s) z_s, sigma_{t|s}^2)``: noise added from s to t."""
    s, t = s.like(z_s), t.like(z_s)
    return Normal(t.alpha / s.alpha * z_s, forward_variance(s, t))


def posterior(z_t: Tensor, x: Tensor, s: Level, t: Level) -> Normal:
    """E3, ``q(z_s | z_t, x)`` (arXiv:2204.03458, eq. 3): with ``r = e^(lambda_t - lambda_s)``,
    ``N(r (alpha_s / alpha_t) z_t + (1 - r) alpha_s x, (1 - r) sigma_s^2)``."""
    s, t = s.like(z_t), t.like(z_t)
    fresh = _gap(s, t) / (s.alpha * t.sigma).square()  # 1 - r
    # r alpha_s / alpha_t without the division by alpha_t, which may be 0.
    of_z = t.alpha * s.sigma.square() / (t.sigma.square() * s.alpha)
    return Normal(of_z * z_t + fresh * s.alpha * x, fresh * s.sigma.square())


def ancestral(z_t: Tensor, x: Tensor, s: Level, t: Level, gamma: float = 0.0) -> Normal:
    """The ancestral sampler's step: the posterior's mean, and the variance ``(sigma_{s|t}^2)^(1 - gamma)
    (sigma_{t|s}^2)^gamma``, between the two bounds in log space (arXiv:2204.03458, section 2);
    0 where s is clean, whatever gamma."""
    mean, least = posterior(z_t, x, s, t)
    most = forward_variance(s.like(z_t), t.like(z_t))
    return Normal(mean, torch.where(least == 0, least, least ** (1 - gamma) * most**gamma))


def langevin(z: Tensor, eps: Tensor, at: Level, noise: Tensor, delta: float = 0.1) -> Tensor:
    """The corrector ``z - (delta / 2) sigma eps + sqrt(delta) sigma noise``: one step of Langevin dynamics at a level,
    whose score is ``-eps / sigma`` (arXiv:2204.03458, section 3.1; delta = 0.1 there)."""
    at = at.like(z)
    return z - (delta / 2) * at.sigma * eps + delta**0.5 * at.sigma * noise


def ddim(z_t: Tensor, x: Tensor, eps: Tensor, s: Level) -> Tensor:
    """``z_s = alpha_s x + sigma_s eps`` (DDIM with eta = 0, arXiv:2010.02502, eq. 12)."""
    s = s.like(z_t)
    return s.alpha * x + s.sigma * eps


def angular_ddim(z_t: Tensor, v: Tensor, s: Level, t: Level) -> Tensor:
    """E5, the same step as a rotation: ``z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v`` (arXiv:2202.00512,
    appendix D). Finite everywhere; equal to :func:`ddim` while v is the network's own, unclipped."""
    turn = (s.angle - t.angle).to(torch.float64)
    at = Level(turn.cos(), turn.sin()).like(z_t)
    return at.alpha * z_t + at.sigma * v


def distillation_target(z_t: Tensor, z_s: Tensor, s: Level, t: Level) -> Tensor:
    """E11, the x with which one DDIM step from t lands on ``z_s``, where two steps of the teacher led
    (arXiv:2202.00512, algorithm 2): ``(z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)``."""
    s, t = s.like(z_t), t.like(z_t)
    ratio = s.sigma / t.sigma
    return (z_s - ratio * z_t) / (s.alpha - ratio * t.alpha)
