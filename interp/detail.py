"""From latents to new frames: what an autoencoder of few latents loses is taken from the neighbouring known frames.

A new frame is ``blend + decode(z) - decode(encode(blend))``, ``blend`` being that of the known frames on both sides,
moved along their optical flow: where nothing changes, the blend itself, with all its detail; where something does, what
the latents say.
"""

from typing import Any

import torch
from torch import Tensor

from inflate.models.decoder import decode_latents, encode_pixels
from interp.neighbours import Neighbours

PICTURES_AT_ONCE = 16


def encode_pictures(vae: Any | None, pixels: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) -> float32 latents (N, c, h, w), some at a time; ``vae`` None leaves them pixels."""
    if vae is None:
        return pixels.float()
    with torch.no_grad():
        return torch.cat([encode_pixels(vae, part).float() for part in pixels.split(PICTURES_AT_ONCE)])


def decode_beside(vae: Any | None, latents: Tensor, neighbours: Neighbours) -> tuple[Tensor, Tensor]:
    """New frames (N, 3, H, W) from latents (N, c, h, w): by residual of the blend, and by the latents alone."""
    plain = decode_latents(vae, latents, PICTURES_AT_ONCE)
    if vae is None:
        return plain, plain
    blend = neighbours.blend
    seen = decode_latents(vae, encode_pictures(vae, blend), PICTURES_AT_ONCE)
    return blend + plain - seen, plain
