"""Latte's temporal transformer block (arXiv:2401.03048, section 3.1, variant 1), for a block that stands after it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.attention import TemporalAttention
from inflate.layers.layer import Call, TemporalLayer
from inflate.layers.place import Place
from inflate.layers.positions import POSITIONS, Position
from inflate.layers.starting import StartsSilent, zero_
from inflate.video import check_num_frames

MLP_RATIO = 4  # as in DiT
NUM_MODULATIONS = 6  # shift, scale and gate, of the attention and of the MLP


class TemporalBlock(StartsSilent, TemporalLayer):
    """Each token attends over its frames, then passes an MLP; both are modulated by the image model's condition.

    ``h + gate * attention(norm(h) * (1 + scale) + shift)``, then the same with the MLP, as in DiT (adaLN-Zero). The six
    modulations come from the condition of each frame (its time step, class or pooled text) in one of two ways:

    - ``condition_dim`` a number C: a projection of this block's own, ``(C,)`` to ``(6 D,)``, which starts at zero, and
      so do the gates. At the first step only it has gradients; the rest follows from the second.
    - ``condition_dim=None`` (PixArt's adaLN-single): the image model has projected its condition to ``(6 D,)`` for
      all its blocks; a table of this block's own is added. The gates are not zero there, so the two output projections
      start at zero instead.

    Either way a new block answers its input. Positions are `TemporalAttention`'s.
    """

    kind = "temporal_block"
    suffix = "-block"
    options: ClassVar[Mapping[str, Any]] = {"position": "sinusoidal"}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"position": POSITIONS}

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        max_frames: int,
        position: Position = "sinusoidal",
        *,
        condition_dim: int | None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.condition_dim = condition_dim
        shared = condition_dim is None
        self.attention = TemporalAttention(dim, num_heads, head_dim, max_frames, position, start_at_zero=shared)
        self.norm = nn.LayerNorm(dim)
        self.linear_1 = nn.Linear(dim, MLP_RATIO * dim)
        self.linear_2 = nn.Linear(MLP_RATIO * dim, dim)
        self.modulation = None if condition_dim is None else nn.Linear(condition_dim, NUM_MODULATIONS * dim)
        self.modulation_table = nn.Parameter(torch.empty(NUM_MODULATIONS, dim)) if shared else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the block the identity; what does not matter for that is as PyTorch starts it."""
        for layer in (self.attention, self.norm, self.linear_1, self.linear_2):
            layer.reset_parameters()
        if self.modulation_table is not None:
            nn.init.zeros_(self.modulation_table)
        zero_(*self.silent())

    def silent(self) -> tuple[nn.Module, ...]:
        """The gates, or the two output projections."""
        return (self.linear_2, self.attention.to_out) if self.modulation is None else (self.modulation,)

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """As wide as the image model's block, and modulated by what modulates that."""
        sizes = (place.channels, place.num_heads, place.head_dim, num_frames)
        return cls(*sizes, options["position"], condition_dim=place.condition_dim)

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "a temporal transformer block"

    def after(self, states: Tensor, call: Call) -> Tensor:
        """With the condition of the image model's own block."""
        arguments, condition = call.arguments(), call.place.condition
        told = arguments[condition] if isinstance(condition, str) else condition(call.module, arguments)
        return self(states, call.frames.num_frames, told)

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{self.dim}, condition_dim={self.condition_dim}"

    def forward(self, hidden_states: Tensor, num_frames: int, condition: Tensor) -> Tensor:
        """``(B * F, N, D)``, frames fastest, to the same shape and dtype.

        ``condition`` is ``(B * F, C)``, or ``(B * F, 6 D)`` where it is shared. Raises ``InputError`` if it is not, or
        if the batch is not whole videos of ``num_frames`` frames.
        """
        check_num_frames(hidden_states.shape[0], num_frames)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self._modulations(condition)
        states = self.attention.norm(hidden_states) * (1 + scale) + shift
        states = rearrange(states, "(b f) n d -> b n f d", f=num_frames)
        change = rearrange(self.attention.attend(states), "b n f d -> (b f) n d")
        # As in TemporalAttention: subtracting +0.0 leaves even -0.0 as it is.
        hidden_states = hidden_states - (0 - gate * change)
        states = self.norm(hidden_states) * (1 + mlp_scale) + mlp_shift
        change = self.linear_2(F.gelu(self.linear_1(states), approximate="tanh"))
        return hidden_states - (0 - mlp_gate * change)

    def _modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Six of ``(B * F, 1, D)``."""
        width = NUM_MODULATIONS * self.dim if self.condition_dim is None else self.condition_dim
        if condition.ndim != 2 or condition.shape[1] != width:
            raise InputError(f"a condition must be (batch * frames, {width}), got shape {tuple(condition.shape)}")
        condition = condition.to(self.linear_1.weight.dtype)
        if self.modulation is not None:
            six = self.modulation(F.silu(condition)).unflatten(-1, (NUM_MODULATIONS, self.dim))
        else:
            assert self.modulation_table is not None, "a block has one or the other"
            six = self.modulation_table + condition.unflatten(-1, (NUM_MODULATIONS, self.dim))
        return six[:, :, None].unbind(1)
