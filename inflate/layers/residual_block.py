"""The temporal residual block of Video LDM (arXiv:2304.08818, section 3.1)."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from inflate.layers.blend import Blend
from inflate.layers.convolution import TemporalConv
from inflate.layers.layer import TemporalLayer
from inflate.layers.place import Place

NORM_EPS = 1e-6


class TemporalResBlock(TemporalLayer):
    """Video LDM's temporal residual block: twice (group norm, SiLU, convolution over three frames), added to its input.

    Group norms take their statistics over all frames of a video. The paper gives no sizes: channels stay as they are.
    It is no identity at its start; `Blend` makes it one.
    """

    options: ClassVar[Mapping[str, Any]] = {"kernel_size": 3, "norm_num_groups": 32, "merge": True}

    def __init__(self, channels: int, norm_num_groups: int = 32, kernel_size: int = 3) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, channels, eps=NORM_EPS)
        self.conv1 = TemporalConv(channels, kernel_size)
        self.norm2 = nn.GroupNorm(norm_num_groups, channels, eps=NORM_EPS)
        self.conv2 = TemporalConv(channels, kernel_size)

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """Fewer groups where they do not divide the channels; ``merge`` puts it into a `Blend`."""
        groups = math.gcd(place.channels, options["norm_num_groups"])
        layer = cls(place.channels, groups, options["kernel_size"])
        return Blend(layer) if options["merge"] else layer

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "a temporal residual block"

    @classmethod
    def faults(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """See `TemporalLayer`; kernels as in `TemporalConv`."""
        yield from TemporalConv.faults({"kernel_size": options["kernel_size"]})
        yield from super().faults(options)

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, C, H, W)``, frames fastest, to the same shape and dtype."""
        states = hidden_states
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            videos = states.unflatten(0, (-1, num_frames)).transpose(1, 2)
            normed = norm(videos).transpose(1, 2).flatten(0, 1)
            states = conv(F.silu(normed), num_frames)
        return hidden_states + states
