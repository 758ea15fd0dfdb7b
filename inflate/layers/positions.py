"""How temporal attention knows which frame is which."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Position = Literal["relative", "sinusoidal", "rotary", "none"]
POSITIONS: tuple[Position, ...] = get_args(Position)


def relative_index(num_frames: int, max_frames: int, device: torch.device | None = None) -> Tensor:
    """Which row of a table of ``2 * max_frames - 1`` distances is for frame i looking at frame j: ``(F, F)``, int64.

    Row ``max_frames - 1`` is distance 0; j after i is above it. Distances of ``max_frames`` and more share the last
    row of their side, so that a table serves any number of frames.
    """
    frame = torch.arange(num_frames, device=device)
    distance = frame[None, :] - frame[:, None]
    return distance.clamp(1 - max_frames, max_frames - 1) + max_frames - 1


def alibi_table(num_heads: int, max_frames: int) -> Tensor:
    """``-slope * |distance|`` for each distance and head, ``(2 * max_frames - 1, num_heads)``, float32.

    Slopes ``2 ** (-8 * head / num_heads)``, head from 1 (ALiBi, arXiv:2108.12409, section 3): from heads that see
    little beyond the next frames to heads that see all frames nearly alike.
    """
    distance = torch.arange(1 - max_frames, max_frames).abs()
    slopes = 2.0 ** (-8.0 * torch.arange(1, num_heads + 1) / num_heads)
    return -distance[:, None] * slopes


def sinusoidal_positions(num_frames: int, dim: int, device: torch.device | None = None) -> Tensor:
    """``(F, dim)``, float32: sines in the even places, cosines in the odd ones (arXiv:1706.03762, section 3.5)."""
    frame = torch.arange(num_frames, device=device, dtype=torch.float32)
    frequency = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / dim))
    angle = frame[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :dim]


def rotate(states: Tensor) -> Tensor:
    """Turn channel pair i of frame m by the angle ``m * 10000 ** (-2 i / d)`` (RoFormer, arXiv:2104.09864, sec. 3.2.2).

    Pairs are neighbouring channels. ``states`` is ``(..., F, d)`` with d even; so are the results. The dot product of
    two turned vectors then depends on their frames through the distance between them only.
    """
    num_frames, dim = states.shape[-2:]
    frame = torch.arange(num_frames, device=states.device, dtype=torch.float32)
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, device=states.device, dtype=torch.float32) / dim)
    angle = frame[:, None] * frequency
    cos, sin = angle.cos().to(states.dtype), angle.sin().to(states.dtype)
    even, odd = states[..., 0::2], states[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
