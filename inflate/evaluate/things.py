"""The things a data set shows: one still and at most one clip per name, without skin-tone variants.

Pictures handed out are float ``(N, 3, S, S)`` in [0, 1], clips ``(1, 3, F, S, S)`` in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inflate.data import FrameCache, base_name, has_skin_tone, sample_clip_indices
from inflate.errors import InputError
from inflate.evaluate.retrieval import choose_names


def to_unit_range(frames: np.ndarray) -> Tensor:
    """uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 255.0


@dataclass(frozen=True, eq=False)
class Things:
    """Entry numbers of ``cache`` by name, apart for ``stills`` and ``clips``."""

    cache: FrameCache
    stills: dict[str, int]
    clips: dict[str, int]

    def names(self, split: str, with_clip: bool = False) -> list[str]:
        """Names of one split that have a still, or that have a clip, sorted."""
        table = self.clips if with_clip else self.stills
        return sorted(name for name, number in table.items() if self.cache.entries[number].split == split)

    def choose(self, split: str, count: int | None, seed: int) -> list[str]:
        """Names of things with a clip in ``split``: all of them for None, else ``count`` drawn by ``seed``, or fewer.

        Raises:
            InputError: there is none.
        """
        names = self.names(split, with_clip=True)
        if not names:
            raise InputError(f"{self.cache.source} has no clips with a caption in its {split} split")
        return names if count is None else choose_names(names, min(count, len(names)), seed)

    def caption(self, name: str) -> str:
        """The caption of a thing, which is its prompt."""
        number = self.stills[name] if name in self.stills else self.clips[name]
        return self.cache.entries[number].caption

    def still_frames(self, names: Sequence[str]) -> np.ndarray:
        """uint8 ``(N, S, S, 3)`` stills."""
        return np.stack([self.cache.frames[self.cache.entries[self.stills[name]].start] for name in names])

    def clip_frames(self, name: str, fps: float, num_frames: int) -> np.ndarray:
        """uint8 ``(F, S, S, 3)``: the frames a player shows from the clip's start on, at ``fps``; loops wrap."""
        entry = self.cache.entries[self.clips[name]]
        indices = sample_clip_indices(entry.timestamps, entry.duration, fps, num_frames, loop=entry.loop)
        return self.cache.clip_frames(self.clips[name])[indices]

    def stills_of(self, names: Sequence[str]) -> Tensor:
        """Stills ``(N, 3, S, S)`` in [0, 1]."""
        return to_unit_range(self.still_frames(names))

    def clip_of(self, name: str, fps: float, num_frames: int) -> Tensor:
        """A real clip ``(1, 3, F, S, S)`` in [0, 1]."""
        return to_unit_range(self.clip_frames(name, fps, num_frames)).transpose(0, 1)[None]


def middle(num_frames: int) -> int:
    """Index of the middle frame, the one whose image embedding conditions a clip in training."""
    return num_frames // 2


def find_things(cache: FrameCache) -> Things:
    """Sort a cache's entries into one still and one clip per base name; entries without a caption are left out.

    Raises:
        InputError: nothing in the cache has a caption.
    """
    stills: dict[str, int] = {}
    clips: dict[str, int] = {}
    for number, entry in enumerate(cache.entries):
        if entry.caption and not has_skin_tone(entry.name):
            table = clips if entry.kind == "clip" else stills
            table.setdefault(base_name(entry.name), number)
    if not stills and not clips:
        raise InputError(f"{cache.source} has no captions to use as prompts; use a folder that inflate prepare made")
    return Things(cache, stills, clips)
