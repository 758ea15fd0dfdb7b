"""Transparency of a video beside networks that know colours alone: taken off before them, and put back after them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inflate.data.decode import fit_size, iterate_alpha

SUFFIXES = frozenset({".gif", ".webp"})
"""Of files that can be written with it."""


def is_transparent(path: Path) -> bool:
    """Whether a pixel of any frame is not opaque."""
    return any(int(alpha.min()) < 255 for alpha in iterate_alpha(path))


@dataclass(frozen=True)
class Transparency:
    """``alpha``: how opaque the pixels of each frame of a file are, uint8 (F, H, W)."""

    alpha: np.ndarray

    @classmethod
    def of(cls, path: Path) -> "Transparency | None":
        """That of a file; None where nothing is transparent."""
        alpha = list(iterate_alpha(path))
        return cls(np.stack(alpha)) if any(int(one.min()) < 255 for one in alpha) else None

    def put_back(self, chunks: Iterator[np.ndarray], rate: int = 1) -> Iterator[np.ndarray]:
        """Frames (n, H, W, 3) on white of any size, ``rate`` times as many as there were -> (n, H, W, 4).

        Between two frames it passes from one to the other evenly. On white they look as they did without.
        """
        number = 0
        for frames in chunks:
            alphas = np.stack([self._at(number + place, rate, *frames.shape[1:3]) for place in range(len(frames))])
            number += len(frames)
            share = np.maximum(alphas, 1)[..., None].astype(np.float32) / 255
            colours = ((frames - 255 * (1 - share)) / share).round().clip(0, 255).astype(np.uint8)
            yield np.concatenate([colours, alphas[..., None]], axis=-1)

    def _at(self, number: int, rate: int, height: int, width: int) -> np.ndarray:
        before, part = divmod(number, rate)
        known = [min(place, len(self.alpha) - 1) for place in (before, before + 1)]
        early, late = (np.asarray(fit_size(Image.fromarray(self.alpha[place]), height, width)) for place in known)
        return (early + (late.astype(np.float32) - early) * (part / rate)).round().astype(np.uint8)
