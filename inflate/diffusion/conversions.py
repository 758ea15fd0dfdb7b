"""What a network predicts, read as each of the others: clean sample x, noise eps, velocity v; and rectified flow's.

On a variance-preserving level, ``z = alpha x + sigma eps`` and ``v = alpha eps - sigma x`` are a rotation by phi
(progressive distillation, arXiv:2202.00512, section 4 and appendix D): ``x = alpha z - sigma v``, ``eps = sigma z +
alpha v``, finite at both ends. x from eps divides by alpha, eps from x by sigma: no number can be had there, so at
alpha = 0 (or sigma = 0) they answer 0, which is the mean of what is unknown for data and noise of mean 0.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from inflate.diffusion.schedules import Level
from inflate.errors import InputError, nearest

Prediction = Literal["sample", "epsilon", "v_prediction", "flow_prediction"]


def _divide(value: Tensor, by: Tensor) -> Tensor:
    return torch.where(by == 0, torch.zeros_like(value), value / torch.where(by == 0, torch.ones_like(by), by))


def x_from_v(z: Tensor, v: Tensor, level: Level) -> Tensor:
    """``x = alpha z - sigma v``."""
    at = level.like(z)
    return at.alpha * z - at.sigma * v


def eps_from_v(z: Tensor, v: Tensor, level: Level) -> Tensor:
    """``eps = sigma z + alpha v``."""
    at = level.like(z)
    return at.sigma * z + at.alpha * v


def x_from_eps(z: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``x = (z - sigma eps) / alpha``; 0 where alpha is 0."""
    at = level.like(z)
    return _divide(z - at.sigma * eps, at.alpha)


def eps_from_x(z: Tensor, x: Tensor, level: Level) -> Tensor:
    """``eps = (z - alpha x) / sigma``; 0 where sigma is 0."""
    at = level.like(z)
    return _divide(z - at.alpha * x, at.sigma)


def v_from_x(z: Tensor, x: Tensor, level: Level) -> Tensor:
    """``v = (alpha z - x) / sigma``; at sigma = 0, where z = x, ``v = alpha eps - sigma x`` is 0 of unknown eps."""
    at = level.like(z)
    return _divide(at.alpha * z - x, at.sigma)


def v_from_eps(z: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``v = (eps - sigma z) / alpha``; at alpha = 0, where z = eps, ``v = -x`` is 0 of unknown x."""
    at = level.like(z)
    return _divide(eps - at.sigma * z, at.alpha)


def v_from_both(x: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``v = alpha eps - sigma x``, the training target; finite everywhere."""
    at = level.like(x)
    return at.alpha * eps - at.sigma * x


def x_from_flow(z: Tensor, u: Tensor, level: Level) -> Tensor:
    """``x = z - sigma u`` for rectified flow's velocity ``u = eps - x`` on ``z = (1 - sigma) x + sigma eps``."""
    return z - level.like(z).sigma * u


def eps_from_flow(z: Tensor, u: Tensor, level: Level) -> Tensor:
    """``eps = z + (1 - sigma) u``."""
    return z + level.like(z).alpha * u


def flow_from_eps(z: Tensor, eps: Tensor, level: Level) -> Tensor:
    """``u = eps - (z - sigma eps) / alpha``; eps where alpha is 0 and x unknown."""
    return eps - x_from_eps(z, eps, level)


def flow_from_x(z: Tensor, x: Tensor, level: Level) -> Tensor:
    """``u = (z - x) / sigma``; 0 where sigma is 0."""
    return _divide(z - x, level.like(z).sigma)


_TO_X: dict[str, Callable[[Tensor, Tensor, Level], Tensor]] = {
    "sample": lambda z, x, level: x,
    "epsilon": x_from_eps,
    "v_prediction": x_from_v,
    "flow_prediction": x_from_flow,
}
_FROM_X: dict[str, Callable[[Tensor, Tensor, Level], Tensor]] = {
    "sample": lambda z, x, level: x,
    "epsilon": eps_from_x,
    "v_prediction": v_from_x,
    "flow_prediction": flow_from_x,
}


def to_x(z: Tensor, predicted: Tensor, level: Level, kind: str) -> Tensor:
    """The clean sample that a prediction of ``kind`` (diffusers' ``prediction_type``) means.

    Raises:
        InputError: an unknown kind.
    """
    return _named(_TO_X, kind)(z, predicted, level)


def from_x(z: Tensor, x: Tensor, level: Level, kind: str) -> Tensor:
    """The prediction of ``kind`` that means the clean sample ``x``; raises as :func:`to_x`."""
    return _named(_FROM_X, kind)(z, x, level)


def _named(
    table: dict[str, Callable[[Tensor, Tensor, Level], Tensor]], kind: str
) -> Callable[[Tensor, Tensor, Level], Tensor]:
    if kind not in table:
        raise InputError(
            f"The prediction type {kind!r} is unknown{nearest(kind, list(table))}; use {', '.join(table)}."
        )
    return table[kind]
