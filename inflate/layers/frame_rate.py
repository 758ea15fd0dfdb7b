"""Conditioning on the frame rate (Make-A-Video, arXiv:2209.14792, section 3.3: one more input, frames per second)."""

import math

import torch
from torch import Tensor, nn

from inflate.errors import InputError

NUM_FREQUENCIES = 64
# Frame rates lie between 1 and 30, not between 0 and 1000 as time steps do: slower waves would be constants.
SLOWEST_PERIOD = 100.0


class FrameRateEmbedding(nn.Module):
    """Frames per second to a vector added to the model's time embedding: sines and cosines, Linear, SiLU, Linear.

    The paper does not say how the rate is embedded; this follows what diffusion models do with time steps. The last
    layer starts at zero, so a new embedding changes nothing, whatever the rate.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.linear_1 = nn.Linear(2 * NUM_FREQUENCIES, embed_dim)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make every answer zero: zero last layer; the first as PyTorch starts it."""
        self.linear_1.reset_parameters()
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, fps: Tensor) -> Tensor:
        """``(B,)`` frames per second, of any real dtype, to ``(B, embed_dim)`` in the dtype of the layer."""
        if fps.ndim != 1:
            raise InputError(f"fps must be one number per video, shape (batch,), got shape {tuple(fps.shape)}")
        waves = frame_rate_waves(fps)
        return self.linear_2(self.act(self.linear_1(waves.to(self.linear_1.weight.dtype))))


def frame_rate_waves(fps: Tensor) -> Tensor:
    """``(B,)`` to ``(B, 2 * NUM_FREQUENCIES)``, float32: cosines, then sines of ``fps / period``.

    Periods grow geometrically from 1 to ``SLOWEST_PERIOD``, so a wave repeats after 2 pi to 628 frames per second.
    """
    exponent = torch.arange(NUM_FREQUENCIES, device=fps.device, dtype=torch.float32) / (NUM_FREQUENCIES - 1)
    angle = fps.to(torch.float32)[:, None] * torch.exp(-math.log(SLOWEST_PERIOD) * exponent)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)
