"""The learned blend of Video LDM (arXiv:2304.08818, section 3.1), and the residual block it blends in."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inflate.layers.convolution import TemporalConv
from inflate.layers.starting import all_zero

NORM_EPS = 1e-6


class Blend(nn.Module):
    """``a z + (1 - a) layer(z)``, a in [0, 1] learned; a new blend has a = 1 and answers its input.

    The parameter is ``mix`` = 1 - a. Outside [0, 1] it counts as the nearer end, but keeps its gradient, so that it can
    come back. At the first step only ``mix`` has a gradient; ``layer`` follows from the second.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.mix = nn.Parameter(torch.zeros(()))

    def reset_parameters(self) -> None:
        """Make the blend the identity; the layer stays as it is."""
        nn.init.zeros_(self.mix)

    def identity_witness(self) -> object:
        """Zero while the blend is the identity."""
        return self.mix

    def is_identity(self) -> bool:
        """Whether the layer still has no weight."""
        return all_zero(self.mix)

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """What the layer takes, to the same shape and dtype."""
        mix = self.mix + (self.mix.clamp(0, 1) - self.mix).detach()
        change = self.layer(hidden_states, num_frames) - hidden_states
        return hidden_states - (0 - mix * change)


class TemporalResBlock(nn.Module):
    """Video LDM's temporal residual block: twice (group norm, SiLU, convolution over three frames), added to its input.

    Group norms take their statistics over all frames of a video. The paper gives no sizes: channels stay as they are.
    It is no identity at its start; `Blend` makes it one.
    """

    def __init__(self, channels: int, norm_num_groups: int = 32, kernel_size: int = 3) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, channels, eps=NORM_EPS)
        self.conv1 = TemporalConv(channels, kernel_size)
        self.norm2 = nn.GroupNorm(norm_num_groups, channels, eps=NORM_EPS)
        self.conv2 = TemporalConv(channels, kernel_size)

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, C, H, W)``, frames fastest, to the same shape and dtype."""
        states = hidden_states
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            videos = states.unflatten(0, (-1, num_frames)).transpose(1, 2)
            normed = norm(videos).transpose(1, 2).flatten(0, 1)
            states = conv(F.silu(normed), num_frames)
        return hidden_states + states
