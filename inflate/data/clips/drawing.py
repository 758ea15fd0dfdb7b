"""Which windows an update trains on: a function of the seed, the update and the position alone."""

from collections.abc import Sequence

import numpy as np

from inflate.data.clips.window import Window
from inflate.errors import InputError

Bucket = tuple[int, int, int, str]


def bucket_of(window: Window) -> Bucket:
    """What the windows of one batch share: height, width, number of frames, kind."""
    return window.height, window.width, window.num_frames, window.kind


class ClipSampler:
    """Draws windows from one bucket an update.

    A bucket is drawn with a chance proportional to its windows, and within it windows are drawn without repetition as
    far as it reaches (then all over again), so that every window is equally likely and a small set is seen evenly.
    """

    def __init__(self, windows: Sequence[Window], seed: int) -> None:
        if not windows:
            raise InputError("there are no clips to draw from; add videos, or read the report of what was left out")
        groups: dict[Bucket, list[int]] = {}
        for index, window in enumerate(windows):
            groups.setdefault(bucket_of(window), []).append(index)
        self.seed = seed
        self.buckets = [groups[bucket] for bucket in sorted(groups)]
        self._ends = np.cumsum([len(bucket) for bucket in self.buckets])

    def draw(self, update: int, first: int, count: int) -> list[int]:
        """Indices of the windows ``first`` to ``first + count`` of an update; all updates' windows share a bucket."""
        rng = np.random.default_rng([self.seed, update])
        bucket = self.buckets[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
        order = rng.permutation(len(bucket))
        return [bucket[int(order[(first + i) % len(bucket)])] for i in range(count)]


def draw_windows(windows: Sequence[Window], seed: int, update: int, first: int, count: int) -> list[int]:
    """:meth:`ClipSampler.draw` for a single use: indices into ``windows`` of ``count`` windows of one bucket."""
    return ClipSampler(windows, seed).draw(update, first, count)
