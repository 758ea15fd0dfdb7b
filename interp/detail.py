"""From latents to new frames: what an autoencoder of few latents loses is taken from the neighbouring known frames.

A new frame is ``blend + decode(z) - decode(encode(blend))``, ``blend`` being that of the known frames on both sides,
moved along their optical flow: where nothing changes, the blend itself, with all its detail; where something does, what
the latents say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inflate.data.optical_flow import flows_between, move_to_between
from inflate.models.decoder import decode_latents, encode_pixels

PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Neighbours:
    """The known frames around each of N new ones.

    ``previous`` and ``following``: (N, 3, H, W); both the nearest known frame where there is none on the other side.
    ``time``: (N,), how far from the previous to the following one; 0 where both are the same.
    ``from_previous`` and ``from_following``: (N, 3, H, W), the two moved to ``time`` along the flow between them.
    """

    previous: Tensor
    following: Tensor
    time: Tensor
    from_previous: Tensor
    from_following: Tensor

    @property
    def blend(self) -> Tensor:
        """The blend of the two as they are at ``time``, (N, 3, H, W)."""
        return torch.lerp(self.from_previous, self.from_following, self.time[:, None, None, None])


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
    """The neighbours of the ``new`` frames of one video (3, F, H, W) in [-1, 1], of which the frames ``known`` are
    there."""
    found = places(known, new)
    moved = _moved(video, found)
    return Neighbours(
        video[:, [before for before, _, _ in found]].transpose(0, 1),
        video[:, [after for _, after, _ in found]].transpose(0, 1),
        torch.tensor([time for _, _, time in found], dtype=video.dtype, device=video.device),
        torch.stack([early for early, _ in moved]),
        torch.stack([late for _, late in moved]),
    )


def _moved(video: Tensor, found: Sequence[tuple[int, int, float]]) -> list[tuple[Tensor, Tensor]]:
    """For each (before, after, time) both frames (3, H, W), moved along the flow between them."""
    frames: dict[int, np.ndarray] = {}
    for index in {place for before, after, _ in found for place in (before, after)}:
        frames[index] = video[:, index].detach().float().cpu().permute(1, 2, 0).numpy()
    levels = {index: ((frame + 1) * 127.5).round().clip(0, 255).astype(np.uint8) for index, frame in frames.items()}
    flows = flows_between(levels, [(before, after) for before, after, _ in found])
    moved = []
    for before, after, time in found:
        first, second = frames[before], frames[after]
        if before != after:
            first, second = move_to_between(first, second, flows[before, after], time)
        pair = [torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))).to(video) for frame in (first, second)]
        moved.append((pair[0], pair[1]))
    return moved


def join_neighbours(several: Sequence[Neighbours]) -> Neighbours:
    """Those of several videos, one after the other."""
    names = [field.name for field in fields(Neighbours)]
    return Neighbours(*(torch.cat([getattr(one, name) for one in several]) for name in names))


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
