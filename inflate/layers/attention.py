"""The temporal half of pseudo-3D attention (Make-A-Video, arXiv:2209.14792, section 3.2.2)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError, nearest
from inflate.layers.inference import attend_over_frames, has_own_way, tokens_of
from inflate.layers.positions import POSITIONS, Position, alibi_table, relative_index, rotate, sinusoidal_positions
from inflate.layers.starting import zero_projection
from inflate.video import check_num_frames

# The fused CUDA kernels put the batch on a grid axis that ends at 65535, and here the batch is every pixel.
MAX_ATTENTION_BATCH = 32768


class TemporalAttention(nn.Module):
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

    def reset_parameters(self) -> None:
        """Make the layer the identity: zero output projection; ALiBi's slopes as relative bias, the rest PyTorch's."""
        for layer in (self.norm, self.to_q, self.to_k, self.to_v):
            layer.reset_parameters()
        if self.start_at_zero:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)
        else:
            self.to_out.reset_parameters()
        if self.relative_bias is not None:
            with torch.no_grad():
                self.relative_bias.copy_(alibi_table(self.num_heads, self.max_frames))

    def identity_witness(self) -> object:
        """Zero while the layer is the identity."""
        return getattr(self.to_out, "bias", None)

    def is_identity(self) -> bool:
        """Whether the output projection is still zero."""
        return zero_projection(self.to_out)

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
        if has_own_way(hidden_states, self.identity_witness(), self.to_out) and hidden_states.is_contiguous():
            return self._infer(hidden_states, num_frames)
        if hidden_states.ndim == 4:
            height = hidden_states.shape[2]
            by_pixel = rearrange(hidden_states, "(b f) d h w -> b (h w) f d", f=num_frames)
            change = self._attend_over_frames(by_pixel)
            change = rearrange(change, "b (h w) f d -> (b f) d h w", h=height)
        else:
            by_pixel = rearrange(hidden_states, "(b f) n d -> b n f d", f=num_frames)
            change = rearrange(self._attend_over_frames(by_pixel), "b n f d -> (b f) n d")
        # h - (0 - change), not h + change: with to_out still zero it subtracts +0.0, which leaves even -0.0 as it is.
        return hidden_states - (0 - change)

    def _infer(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """`forward` without gradients: the output projection adds to its input, in that one's layout."""
        changed = torch.empty_like(hidden_states)
        videos = (states.unflatten(0, (-1, num_frames)) for states in (hidden_states, changed))
        for frames, answer in zip(*videos, strict=True):
            tokens = self.norm(tokens_of(frames) if frames.ndim == 4 else frames)
            if self.position == "sinusoidal":
                tokens += sinusoidal_positions(num_frames, self.dim, tokens.device).to(tokens.dtype)[:, None]
            query, key, value = (project(tokens) for project in (self.to_q, self.to_k, self.to_v))
            del tokens
            if self.position == "rotary":
                query, key = (self._rotated(states) for states in (query, key))
            attended = attend_over_frames(query, key, value, self.num_heads, self._bias(num_frames, query))
            del query, key, value
            weight = self.to_out.weight.expand(num_frames, -1, -1)
            if frames.ndim == 4:
                torch.baddbmm(frames.flatten(2), weight, attended.transpose(1, 2), out=answer.flatten(2))
                answer += self.to_out.bias[:, None, None]
            else:
                torch.baddbmm(frames, attended, weight.transpose(1, 2), out=answer)
                answer += self.to_out.bias
        return changed

    def _rotated(self, states: Tensor) -> Tensor:
        """``(F, N, heads * d)``, each head's channels turned by the frame."""
        by_head = states.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3)
        return rotate(by_head).permute(2, 0, 1, 3).flatten(2)

    def _attend_over_frames(self, by_pixel: Tensor) -> Tensor:
        """``(B, N, F, D)`` to the residual's change, ``(B, N, F, D)``."""
        return self.attend(self.norm(by_pixel))

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
        bias = self._bias(num_frames, query)
        parts = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            for q, k, v in zip(*(x.split(MAX_ATTENTION_BATCH) for x in (query, key, value)), strict=True)
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.to_out(rearrange(attended, "(b n) k f d -> b n f (k d)", b=num_videos))

    def _bias(self, num_frames: int, query: Tensor) -> Tensor | None:
        """The relative bias as attention takes it, ``(1, heads, F, F)``, or None for the other positions."""
        if self.relative_bias is None:
            return None
        index = relative_index(num_frames, self.max_frames, query.device)
        return self.relative_bias[index].permute(2, 0, 1).unsqueeze(0).to(query.dtype)
