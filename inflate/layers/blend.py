"""The learned blend of Video LDM (arXiv:2304.08818, section 3.1)."""

import torch
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.layer import Options, TemporalLayer
from inflate.layers.place import Place
from inflate.layers.starting import StartsAsIdentity, all_zero


class Blend(StartsAsIdentity, TemporalLayer):
    """``a z + (1 - a) layer(z)``, a in [0, 1] learned; a new blend has a = 1 and answers its input.

    The parameter is ``mix`` = 1 - a. Outside [0, 1] it counts as the nearer end, but keeps its gradient, so that it can
    come back. At the first step only ``mix`` has a gradient; ``layer`` follows from the second.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.mix = nn.Parameter(torch.zeros(()))

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Options) -> TemporalLayer:
        """Refused: a blend is made with the layer in it."""
        raise InputError("a blend goes nowhere by itself; give the layer that is to be in it the option merge")

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
