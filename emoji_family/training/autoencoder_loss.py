"""What the autoencoder learns from: reconstruction, edges, and latents that a diffusion model likes.

The latents are kept near zero mean and unit variance per channel, and the decoder sees them with a little noise on top,
so that it forgives the small errors a sampler leaves (both as in the regularised autoencoders of latent diffusion,
arXiv:2112.10752 section 3.1; there KL or VQ, here batch moments, because the encoder is deterministic).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AutoencoderLoss:
    """The loss and its parts, each a scalar tensor."""

    total: Tensor
    reconstruction: Tensor
    edges: Tensor
    moments: Tensor


def edge_maps(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical first differences of pictures ``(B, C, H, W)``."""
    return pixels[..., :, 1:] - pixels[..., :, :-1], pixels[..., 1:, :] - pixels[..., :-1, :]


def moment_penalty(latents: Tensor) -> Tensor:
    """KL from each channel's batch Gaussian to N(0, 1): ``(mean^2 + var - 1 - log var) / 2``, averaged over channels.

    ``latents`` is ``(B, C, H, W)``; zero exactly when every channel has mean 0 and variance 1 over the batch.
    """
    values = latents.float().transpose(0, 1).flatten(1)
    mean, variance = values.mean(1), values.var(1, unbiased=False)
    return 0.5 * (mean.square() + variance - 1 - variance.clamp_min(1e-6).log()).mean()


def autoencoder_loss(
    pixels: Tensor, reconstruction: Tensor, latents: Tensor, edge_weight: float, moment_weight: float
) -> AutoencoderLoss:
    """L1 plus weighted L1 of edges plus the moment penalty.

    ``pixels`` and ``reconstruction`` are ``(B, 3, H, W)`` in [-1, 1]; ``latents`` as in :func:`moment_penalty`.
    """
    reconstruction = reconstruction.float()
    main = F.l1_loss(reconstruction, pixels)
    edges = sum(
        (F.l1_loss(made, true) for made, true in zip(edge_maps(reconstruction), edge_maps(pixels), strict=True)),
        start=torch.zeros((), device=pixels.device),
    )
    moments = moment_penalty(latents)
    return AutoencoderLoss(main + edge_weight * edges + moment_weight * moments, main, edges, moments)
