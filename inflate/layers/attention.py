"""The temporal half of pseudo-3D attention (Make-A-Video, arXiv:2209.14792, section 3.2.2)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError, nearest
from inflate.layers.blend import Blend
from inflate.layers.inference import quick_answer
from inflate.layers.layer import TemporalLayer
from inflate.layers.place import Place
from inflate.layers.positions import POSITIONS, Position, alibi_table, relative_index, rotate, sinusoidal_positions
from inflate.layers.starting import StartsSilent, zero_
from inflate.video import check_num_frames

# The fused CUDA kernels put the batch on a grid axis that ends at 65535, and here the batch is every pixel.
MAX_ATTENTION_BATCH = 32768


class TemporalAttention(StartsSilent, TemporalLayer):
    """Each pixel (or token) attends over its frames: ``h + to_out(attention(norm(h)))``, the outer half of Attn_P3D.

    ``norm`` is a LayerNorm over ``dim``; ``to_q``, ``to_k``, ``to_v`` map ``dim`` to ``num_heads * head_dim`` without
    bias; ``to_out`` maps back, with bias, and starts at zero, so a new layer answers its input. At the first step only
    ``to_out`` has gradients; the rest follows from the second.

    ``position`` says how the layer knows which frame is which:

    - ``"relative"`` (VDM, arXiv:2204.03458): a learned number per head and distance, added to the attention logits;
      ``relative_bias`` is ``(2 * max_frames - 1, num_heads)`` and starts as ALiBi's slopes. Any number of frames works:
      distances of ``max_frames`` and more take the value learned for ``max_frames - 1``.
    - ``"sinusoidal"``: sines and cosines added to the normalised states, as AnimateDiff does.
    - ``"rotary"``: queries and keys turned by their frame; ``head_dim`` must be even.
    - ``"none"``: frames are a set without order.

    The last three have no parameters and no largest number of frames; ``max_frames`` does nothing there.

    ``start_at_zero=False`` starts ``to_out`` as PyTorch does, for a layer that something else keeps quiet (`Blend`).
    """

    options: ClassVar[Mapping[str, Any]] = {"position": "relative", "attention_width": 1.0, "merge": False}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"position": POSITIONS}

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        max_frames: int,
        position: Position = "relative",
        start_at_zero: bool = True,
    ) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise InputError(
                f"position must be one of {', '.join(POSITIONS)}, got {position!r}{nearest(str(position), POSITIONS)}"
            )
        if position == "rotary" and head_dim % 2:
            raise InputError(f"rotary positions turn pairs of channels: head_dim must be even, got {head_dim}")
        if min(dim, num_heads, head_dim, max_frames) < 1:
            raise InputError(
                f"dim, num_heads, head_dim and max_frames must be at least 1, "
                f"got {dim}, {num_heads}, {head_dim} and {max_frames}"
            )
        self.dim = dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.max_frames = max_frames
        self.position = position
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_k = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_v = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, dim)
        self.relative_bias = (
            nn.Parameter(torch.empty(2 * max_frames - 1, num_heads)) if position == "relative" else None
        )
        self.start_at_zero = start_at_zero
        self.reset_parameters()

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """A share of the spatial attention's heads (``attention_width``); ``merge`` puts it into a `Blend`."""
        share, head_dim = place.num_heads * options["attention_width"], place.head_dim
        if share < 1:  # one spatial head only: a narrower one
            head_dim = max(2, round(share * head_dim) // 2 * 2)
        merge, position = options["merge"], options["position"]
        layer = cls(place.channels, max(1, round(share)), head_dim, num_frames, position, start_at_zero=not merge)
        return Blend(layer) if merge else layer

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return f"{'narrow ' if options['attention_width'] < 1 else ''}attention over frames"

    def reset_parameters(self) -> None:
        """Make the layer the identity: zero output projection; ALiBi's slopes as relative bias, the rest PyTorch's."""
        for layer in (self.norm, self.to_q, self.to_k, self.to_v):
            layer.reset_parameters()
        if self.start_at_zero:
            zero_(self.to_out)
        else:
            self.to_out.reset_parameters()
        if self.relative_bias is not None:
            with torch.no_grad():
                self.relative_bias.copy_(alibi_table(self.num_heads, self.max_frames))

    def silent(self) -> tuple[nn.Module, ...]:
        """See `StartsSilent`."""
        return (self.to_out,)

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return (
            f"{self.dim}, num_heads={self.num_heads}, head_dim={self.head_dim}, "
            f"max_frames={self.max_frames}, position={self.position!r}"
        )

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, D, H, W)`` or ``(B * F, N, D)``, frames fastest, to the same shape and dtype.

        Raises ``InputError`` if the batch is not whole videos of ``num_frames`` frames.
        """
        check_num_frames(hidden_states.shape[0], num_frames)
        answer = quick_answer(self, hidden_states, num_frames)
        if answer is not None:
            return answer
        pattern, height = ("(b f) d h w", 2) if hidden_states.ndim == 4 else ("(b f) (h w) d", 1)
        sizes = {"f": num_frames, "h": hidden_states.shape[height]}
        change = self.attend(self.norm(rearrange(hidden_states, f"{pattern} -> b (h w) f d", **sizes)))
        # h - (0 - change), not h + change: with to_out still zero it subtracts +0.0, which leaves even -0.0 as it is.
        return hidden_states - (0 - rearrange(change, f"b (h w) f d -> {pattern}", **sizes))

    def attend(self, states: Tensor) -> Tensor:
        """Attention and output projection alone: normalised ``(B, N, F, D)`` to the change, of the same shape."""
        num_videos, _, num_frames, _ = states.shape
        if self.position == "sinusoidal":
            states = states + sinusoidal_positions(num_frames, self.dim, states.device).to(states.dtype)
        query, key, value = (
            rearrange(project(states), "b n f (k d) -> (b n) k f d", k=self.num_heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        if self.position == "rotary":
            query, key = rotate(query), rotate(key)
        bias = self.bias_of(num_frames, query)
        parts = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            for q, k, v in zip(*(x.split(MAX_ATTENTION_BATCH) for x in (query, key, value)), strict=True)
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.to_out(rearrange(attended, "(b n) k f d -> b n f (k d)", b=num_videos))

    def bias_of(self, num_frames: int, query: Tensor) -> Tensor | None:
        """The relative bias as attention takes it, ``(1, heads, F, F)``, or None for the other positions."""
        if self.relative_bias is None:
            return None
        index = relative_index(num_frames, self.max_frames, query.device)
        return self.relative_bias[index].permute(2, 0, 1).unsqueeze(0).to(query.dtype)
