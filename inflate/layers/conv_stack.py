"""ModelScope's temporal convolutions (arXiv:2308.06571, section 3.2); weights have the names of diffusers' layer."""

import math
from typing import ClassVar

from einops import rearrange
from torch import Tensor, nn

from inflate.layers.layer import Options, TemporalLayer
from inflate.layers.place import Place
from inflate.layers.starting import StartsSilent, zero_
from inflate.video import check_num_frames

NUM_CONVOLUTIONS = 4


class TemporalConvStack(StartsSilent, TemporalLayer):
    """``h + conv4(conv3(conv2(conv1(h))))``, each of them group norm, SiLU and a convolution over three frames.

    Norms take their statistics over all frames of a video. The last convolution starts at zero, so a new stack answers
    its input. Weights have the names of diffusers' ``TemporalConvLayer``: ``conv1.0`` is a norm, ``conv1.2`` and, after
    a dropout without weights, ``conv2.3`` to ``conv4.3`` are convolutions.
    """

    options: ClassVar[Options] = {"norm_num_groups": 32}  # fewer where they do not divide the channels
    words = "four temporal convolutions"
    suffix = "-stack"

    def __init__(self, channels: int, norm_num_groups: int = 32) -> None:
        super().__init__()
        for number in range(1, NUM_CONVOLUTIONS + 1):
            conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
            dropout = () if number == 1 else (nn.Identity(),)
            self.add_module(
                f"conv{number}", nn.Sequential(nn.GroupNorm(norm_num_groups, channels), nn.SiLU(), *dropout, conv)
            )
        zero_(*self.silent())

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Options) -> TemporalLayer:
        """As wide as what the residual block before it answers."""
        return cls(place.channels, math.gcd(place.channels, options["norm_num_groups"]))

    def silent(self) -> tuple[nn.Module, ...]:
        """The last convolution."""
        return (self.get_submodule(f"conv{NUM_CONVOLUTIONS}.3"),)

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, C, H, W)``, frames fastest, to the same shape and dtype.

        Raises ``InputError`` if the batch is not whole videos of ``num_frames`` frames.
        """
        check_num_frames(hidden_states.shape[0], num_frames)
        change = rearrange(hidden_states, "(b f) c h w -> b c f h w", f=num_frames)
        for conv in self.children():
            change = conv(change)
        # As in TemporalAttention: subtracting +0.0 leaves even -0.0 as it is.
        return hidden_states - (0 - rearrange(change, "b c f h w -> (b f) c h w"))
