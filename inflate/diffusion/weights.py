"""Loss weights by signal-to-noise ratio, written for a v-prediction loss.

With ``alpha^2 + sigma^2 = 1``: ``||v - v_hat||^2 = (1 + SNR) ||x - x_hat||^2`` (progressive distillation,
arXiv:2202.00512, section 4), so a weight ``w(SNR)`` on the x-loss is ``w(SNR) / (1 + SNR)`` on the v-loss.
"""

from torch import Tensor


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """``SNR = alpha^2 / sigma^2 = a / (1 - a)`` for cumulative products ``a`` in [0, 1); same shape."""
    return alphas_cumprod / (1 - alphas_cumprod)


def v_weight(snr: Tensor, weighting: str, gamma: float) -> Tensor:
    """The factor on the v-loss for a named weighting of the x-loss.

    Args:
        snr: signal-to-noise ratio of each sample's timestep, any shape.
        weighting: ``"v"`` (1: the v-loss as it is), ``"min-snr"`` (``min(SNR, gamma)`` on x, Min-SNR, arXiv:2303.09556
            section 3.4) or ``"truncated-snr"`` (``max(SNR, 1)`` on x, arXiv:2202.00512 section 4).
        gamma: the ceiling of ``min-snr``; unused by the others.

    Raises:
        ValueError: an unknown weighting.
    """
    if weighting == "v":
        return snr.new_ones(snr.shape)
    if weighting == "min-snr":
        return snr.clamp(max=gamma) / (1 + snr)
    if weighting == "truncated-snr":
        return snr.clamp(min=1) / (1 + snr)
    raise ValueError(f"The weighting {weighting!r} is unknown; use 'v', 'min-snr' or 'truncated-snr'.")
