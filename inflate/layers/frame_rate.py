"""Conditioning on the frame rate (Make-A-Video, arXiv:2209.14792, section 3.3: one more input, frames per second)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.frames import FrameContext
from inflate.layers.layer import Call, TemporalLayer
from inflate.layers.place import Place
from inflate.layers.starting import zero_

NUM_FREQUENCIES = 64
# Frame rates lie between 1 and 30, not between 0 and 1000 as time steps do: slower waves would be constants.
SLOWEST_PERIOD = 100.0


class FrameRateEmbedding(TemporalLayer):
    """Frames per second to a vector added to the model's time embedding: sines and cosines, Linear, SiLU, Linear.

    The paper does not say how the rate is embedded; this follows what diffusion models do with time steps. The last
    layer starts at zero, so a new embedding changes nothing, whatever the rate.

    The video model embeds once for all places, and what hangs there adds it.
    """

    mixes = False

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.linear_1 = nn.Linear(2 * NUM_FREQUENCIES, embed_dim)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "frame-rate embedding"

    def reset_parameters(self) -> None:
        """Make every answer zero: zero last layer; the first as PyTorch starts it."""
        self.linear_1.reset_parameters()
        zero_(self.linear_2)

    def forward(self, fps: Tensor) -> Tensor:
        """``(B,)`` frames per second, of any real dtype, to ``(B, embed_dim)`` in the dtype of the layer."""
        if fps.ndim != 1:
            raise InputError(f"fps must be one number per video, shape (batch,), got shape {tuple(fps.shape)}")
        waves = frame_rate_waves(fps)
        return self.linear_2(self.act(self.linear_1(waves.to(self.linear_1.weight.dtype))))

    def after(self, states: Tensor, call: Call) -> Tensor:
        """The time step's embedding, `(B*F, D)`, plus the video's, where a call gave one."""
        embedding = call.frames.embedding
        return states if embedding is None else states + embedding.to(states.dtype)


class GuidanceEmbedding(FrameRateEmbedding):
    """The same of a guidance scale. Both are added at once, so it hangs only where it is `alone`."""

    options: ClassVar[Mapping[str, Any]] = {"alone": True}

    def __init__(self, embed_dim: int, alone: bool = True) -> None:
        super().__init__(embed_dim)
        self.alone = alone

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "guidance-scale embedding"

    @classmethod
    def name_at(cls, place: Place) -> str:
        """One for all places."""
        return "guidance_embedding"

    def hang(self, module: nn.Module, place: Place, context: FrameContext) -> list[Any]:
        """See `TemporalLayer`."""
        return super().hang(module, place, context) if self.alone else []


def frame_rate_waves(fps: Tensor) -> Tensor:
    """``(B,)`` to ``(B, 2 * NUM_FREQUENCIES)``, float32: cosines, then sines of ``fps / period``.

    Periods grow geometrically from 1 to ``SLOWEST_PERIOD``, so a wave repeats after 2 pi to 628 frames per second.
    """
    exponent = torch.arange(NUM_FREQUENCIES, device=fps.device, dtype=torch.float32) / (NUM_FREQUENCIES - 1)
    angle = fps.to(torch.float32)[:, None] * torch.exp(-math.log(SLOWEST_PERIOD) * exponent)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)
