"""Loss weights by signal-to-noise ratio, as the factor on the loss of whatever a network predicts.

With ``alpha^2 + sigma^2 = 1``, ``||v - v_hat||^2 = (1 + SNR) ||x - x_hat||^2 = ||x - x_hat||^2 + ||eps - eps_hat||^2``
and ``||eps - eps_hat||^2 = SNR ||x - x_hat||^2`` (progressive distillation, arXiv:2202.00512, section 4). So a weight
``w(SNR)`` on the x-loss is ``w / SNR`` on the eps-loss and ``w / (1 + SNR)`` on the v-loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from inflate.errors import InputError, nearest

# Each as (on the x-loss, on the eps-loss, on the v-loss) of SNR and gamma, written so that an SNR of 0 or infinity
# meets no 0 * infinity.
_Factor = Callable[[Tensor, float], Tensor]
_FACTORS: dict[str, tuple[_Factor, _Factor, _Factor]] = {
    "v": (lambda snr, _: 1 + snr, lambda snr, _: 1 + 1 / snr, lambda snr, _: torch.ones_like(snr)),
    "snr": (lambda snr, _: snr, lambda snr, _: torch.ones_like(snr), lambda snr, _: 1 / (1 + 1 / snr)),
    "truncated-snr": (
        lambda snr, _: snr.clamp(min=1),
        lambda snr, _: (1 / snr).clamp(min=1),
        lambda snr, _: torch.maximum(1 / (1 + 1 / snr), 1 / (1 + snr)),
    ),
    "min-snr": (
        lambda snr, gamma: snr.clamp(max=gamma),
        lambda snr, gamma: (gamma / snr).clamp(max=1),
        lambda snr, gamma: torch.minimum(1 / (1 + 1 / snr), gamma / (1 + snr)),
    ),
    "x": (lambda snr, _: torch.ones_like(snr), lambda snr, _: 1 / snr, lambda snr, _: 1 / (1 + snr)),
}
_FACTORS["epsilon"] = _FACTORS["snr"]
_PREDICTIONS = ("sample", "epsilon", "v_prediction")
WEIGHTINGS = tuple(_FACTORS)


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """``SNR = alpha^2 / sigma^2 = a / (1 - a)`` for cumulative products ``a`` in [0, 1]; infinite at 1; same shape."""
    return alphas_cumprod / (1 - alphas_cumprod)


def loss_weight(snr: Tensor, weighting: str, prediction_type: str, gamma: float = 5.0) -> Tensor:
    """The factor on the squared error of a prediction for a named weighting.

    Args:
        snr: signal-to-noise ratio of each sample's timestep, any shape, from 0 to infinity.
        weighting: the squared error that is to be uniform over levels: ``"x"`` (1 on x), ``"epsilon"`` or ``"snr"``
            (SNR on x) or ``"v"`` (1 + SNR on x); or ``"truncated-snr"`` (``max(SNR, 1)`` on x, arXiv:2202.00512
            section 4) or ``"min-snr"`` (``min(SNR, gamma)`` on x, arXiv:2303.09556 section 3.4).
        prediction_type: of the error that is weighted: ``"sample"``, ``"epsilon"`` or ``"v_prediction"``.
        gamma: the ceiling of ``min-snr``; unused by the others.

    Returns:
        Finite factors. Where the factor has no finite limit the error itself is 0 whatever the network says of x (an
        eps-loss at SNR 0, an x-loss at SNR infinity), and the factor is 0.

    Raises:
        InputError: an unknown weighting or prediction type.
    """
    if weighting not in _FACTORS:
        raise InputError(
            f"The weighting {weighting!r} is unknown{nearest(weighting, WEIGHTINGS)}; use {', '.join(WEIGHTINGS)}."
        )
    if prediction_type not in _PREDICTIONS:
        raise InputError(
            f"The prediction type {prediction_type!r} has no weight{nearest(prediction_type, _PREDICTIONS)}; "
            f"use {', '.join(_PREDICTIONS)}."
        )
    factor = _FACTORS[weighting][_PREDICTIONS.index(prediction_type)](snr, gamma)
    return torch.where(factor.isinf(), torch.zeros_like(factor), factor)
