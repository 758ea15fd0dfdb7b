"""AnimateDiff's temporal transformer (arXiv:2307.04725, section 4.2); weights have the names of diffusers' adapter."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.inference import quick_answer
from inflate.layers.layer import TemporalLayer
from inflate.layers.place import Place
from inflate.layers.positions import sinusoidal_positions
from inflate.layers.starting import StartsSilent, zero_
from inflate.video import check_num_frames

NORM_EPS = 1e-6


class MotionModule(StartsSilent, TemporalLayer):
    """``h + proj_out(blocks(proj_in(norm(h))))``: each pixel's frames pass a small transformer.

    A block is two self-attentions over the frames, each with its own table of positions added to its normalised input,
    and a GEGLU feed-forward. ``proj_out`` starts at zero, so a new module answers its input. Weights have the names of
    diffusers' ``AnimateDiffTransformer3D``, but for the positions: diffusers keeps one table per block
    (``pos_embed.pe``), AnimateDiff's files one per attention, and so does this (``attn1.pe``, ``attn2.pe``).

    Args:
        channels: of the picture, and of the transformer.
        num_heads: of each attention; must divide ``channels``.
        norm_num_groups: of the group norm; must divide ``channels``.
        max_frames: rows of the position tables; longer videos are refused.
        num_layers: transformer blocks.
        norm_over_video: whether the group norm takes its statistics over all frames together, as diffusers does, or
            over each frame alone, as AnimateDiff's own code does.
    """

    kind = "motion_module"
    options: ClassVar[Mapping[str, Any]] = {
        "motion_heads": 8,  # fewer where they do not divide the channels
        "motion_layers": 1,
        "norm_num_groups": 32,  # likewise
        "norm_over_video": True,
        "max_frames": None,  # positions that there are; None: as many as a clip has frames
    }

    def __init__(
        self,
        channels: int,
        num_heads: int = 8,
        norm_num_groups: int = 32,
        max_frames: int = 32,
        num_layers: int = 1,
        norm_over_video: bool = True,
    ) -> None:
        super().__init__()
        for what, number in (("num_heads", num_heads), ("norm_num_groups", norm_num_groups)):
            if number < 1 or channels % number:
                raise InputError(f"a motion module of {channels} channels cannot have {what}={number}: it must divide")
        self.channels = channels
        self.max_frames = max_frames
        self.norm_over_video = norm_over_video
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=NORM_EPS)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(MotionBlock(channels, num_heads, max_frames) for _ in range(num_layers))
        self.proj_out = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the module the identity: zero output projection; the rest as PyTorch starts it."""
        self.norm.reset_parameters()
        self.proj_in.reset_parameters()
        for block in self.blocks():
            block.reset_parameters()
        zero_(self.proj_out)

    def silent(self) -> tuple[nn.Module, ...]:
        """See `StartsSilent`."""
        return (self.proj_out,)

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """As wide as the layer of the UNet that it follows."""
        return cls(
            place.channels,
            num_heads=math.gcd(place.channels, options["motion_heads"]),
            norm_num_groups=math.gcd(place.channels, options["norm_num_groups"]),
            max_frames=options["max_frames"] or num_frames,
            num_layers=options["motion_layers"],
            norm_over_video=options["norm_over_video"],
        )

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "a temporal transformer"

    def blocks(self) -> "list[MotionBlock]":
        """Its transformer blocks."""
        return [block for block in self.transformer_blocks if isinstance(block, MotionBlock)]

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{self.channels}, max_frames={self.max_frames}, norm_over_video={self.norm_over_video}"

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, C, H, W)``, frames fastest, to the same shape and dtype.

        Raises ``InputError`` if the batch is not whole videos, or has more frames than there are positions.
        """
        check_num_frames(hidden_states.shape[0], num_frames)
        if num_frames > self.max_frames:
            raise InputError(
                f"these motion modules know {self.max_frames} positions and were asked for {num_frames} frames; "
                f"make at most {self.max_frames} at once, or use weights with more positions"
            )
        answer = quick_answer(self, hidden_states, num_frames)
        if answer is not None:
            return answer
        height = hidden_states.shape[2]
        states = hidden_states
        if self.norm_over_video:
            states = rearrange(
                self.norm(rearrange(states, "(b f) c h w -> b c f h w", f=num_frames)), "b c f h w -> b h w f c"
            )
        else:
            states = rearrange(self.norm(states), "(b f) c h w -> b h w f c", f=num_frames)
        states = self.proj_in(states.flatten(0, 2))
        for block in self.transformer_blocks:
            states = block(states)
        change = rearrange(
            self.proj_out(states), "(b h w) f c -> (b f) c h w", b=hidden_states.shape[0] // num_frames, h=height
        )
        # As in TemporalAttention: subtracting +0.0 leaves even -0.0 as it is.
        return hidden_states - (0 - change)


class MotionBlock(nn.Module):
    """Two self-attentions over frames and a feed-forward, each ``h + f(norm(h))``."""

    def __init__(self, channels: int, num_heads: int, max_frames: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = FrameAttention(channels, num_heads, max_frames)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = FrameAttention(channels, num_heads, max_frames)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = GEGLUFeedForward(channels)

    def reset_parameters(self) -> None:
        """As PyTorch starts its layers; positions are sines and cosines."""
        for layer in (self.norm1, self.attn1, self.norm2, self.attn2, self.norm3, self.ff):
            layer.reset_parameters()

    def forward(self, states: Tensor) -> Tensor:
        """``(N, F, C)`` to the same shape."""
        states = self.attn1(self.norm1(states)) + states
        states = self.attn2(self.norm2(states)) + states
        return self.ff(self.norm3(states)) + states


class FrameAttention(nn.Module):
    """Self-attention over frames, with a table of positions ``pe`` (1, max_frames, C) added to its input."""

    pe: Tensor

    def __init__(self, channels: int, num_heads: int, max_frames: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        # A list of one, since files name it to_out.0 (the second, dropout, has no weights).
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.register_buffer("pe", torch.empty(1, max_frames, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As PyTorch starts its layers; positions are sines and cosines."""
        for layer in (self.to_q, self.to_k, self.to_v, self.to_out[0]):
            assert isinstance(layer, nn.Linear), "projections only"
            layer.reset_parameters()
        self.pe.copy_(sinusoidal_positions(self.pe.shape[1], self.pe.shape[2], self.pe.device)[None])

    def forward(self, states: Tensor) -> Tensor:
        """``(N, F, C)`` to the same shape."""
        states = states + self.pe[:, : states.shape[1]]
        query, key, value = (
            rearrange(project(states), "n f (k d) -> n k f d", k=self.num_heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](rearrange(attended, "n k f d -> n f (k d)"))


class GEGLUFeedForward(nn.Module):
    """``W2 (a * gelu(b))`` with ``a, b = W1 x``, four times as wide inside (arXiv:2002.05202)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        gate = nn.Module()
        gate.proj = nn.Linear(channels, 8 * channels)
        # Files name the two layers net.0.proj and net.2; between them is a dropout without weights.
        self.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * channels, channels)])

    def reset_parameters(self) -> None:
        """As PyTorch starts its layers."""
        for layer in self.projections():
            layer.reset_parameters()

    def forward(self, states: Tensor) -> Tensor:
        """``(..., C)`` to the same shape."""
        wide, narrow = self.projections()
        states, gate = wide(states).chunk(2, dim=-1)
        return narrow(states * F.gelu(gate))

    def projections(self) -> tuple[Any, Any]:
        """The two linear layers, or what PEFT or a quantiser has put in their place."""
        return self.get_submodule("net.0.proj"), self.get_submodule("net.2")
