"""From latents to new frames: what an autoencoder of few latents loses is taken from the neighbouring known frames.

A new frame is ``blend + decode(z) - decode(encode(blend))``, ``blend`` being the linear blend of the known frames on
both sides: where nothing changes, the blend itself, with all its detail; where something does, what the latents say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.models.decoder import decode_latents, encode_pixels

PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Neighbours:
    """The known frames around each of N new ones.

    ``previous`` and ``following``: (N, 3, H, W); both the nearest known frame where there is none on the other side.
    ``time``: (N,), how far from the previous to the following one; 0 where both are the same.
    """

    previous: Tensor
    following: Tensor
    time: Tensor

    @property
    def blend(self) -> Tensor:
        """The linear blend of the two, (N, 3, H, W)."""
        return torch.lerp(self.previous, self.following, self.time[:, None, None, None])


def places(known: Sequence[int], new: Sequence[int]) -> list[tuple[int, int, float]]:
    """For each of the ``new`` frame numbers: those of the known frames before and after, and the time in between."""
    found = []
    for index in new:
        before = max((place for place in known if place < index), default=None)
        after = min((place for place in known if place > index), default=None)
        if before is None or after is None:
            nearest = before if after is None else after
            assert nearest is not None, "a window has a known frame"
            found.append((nearest, nearest, 0.0))
        else:
            found.append((before, after, (index - before) / (after - before)))
    return found


def neighbours_of(video: Tensor, known: Sequence[int], new: Sequence[int]) -> Neighbours:
    """The neighbours of the ``new`` frames of one video (3, F, H, W), of which the frames ``known`` are there."""
    found = places(known, new)
    return Neighbours(
        video[:, [before for before, _, _ in found]].transpose(0, 1),
        video[:, [after for _, after, _ in found]].transpose(0, 1),
        torch.tensor([time for _, _, time in found], dtype=video.dtype, device=video.device),
    )


def join_neighbours(several: Sequence[Neighbours]) -> Neighbours:
    """Those of several videos, one after the other."""
    return Neighbours(
        torch.cat([one.previous for one in several]),
        torch.cat([one.following for one in several]),
        torch.cat([one.time for one in several]),
    )


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
