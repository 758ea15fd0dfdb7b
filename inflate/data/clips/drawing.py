"""Which windows an update trains on: a function of the seed, the update and the position alone."""

from collections.abc import Sequence

import numpy as np

from inflate.data.clips.window import Window
from inflate.errors import InputError

_EPOCH, _BUCKETS, _AT_ONCE = 1, 2, 4096  # what numbers are drawn for, and how many at once

Bucket = tuple[int, int, int, str]


def bucket_of(window: Window) -> Bucket:
    """What the windows of one batch share: height, width, number of frames, kind."""
    return window.height, window.width, window.num_frames, window.kind


class ClipSampler:
    """Draws windows from one bucket an update.

    A bucket is drawn with a chance proportional to its windows, and within it windows are drawn without repetition as
    far as it reaches (then all over again), so that every window is equally likely and a small set is seen evenly.

    With ``per_update``, how many windows all processes together draw an update, a bucket is gone through epoch by
    epoch: each of its windows once in an order drawn anew, however the updates' windows are shared out. An update in
    which one epoch ends begins the next. Without it every update draws anew.
    """

    def __init__(self, windows: Sequence[Window], seed: int, per_update: int = 0) -> None:
        if not windows:
            raise InputError("there are no clips to draw from; add videos, or read the report of what was left out")
        groups: dict[Bucket, list[int]] = {}
        for index, window in enumerate(windows):
            groups.setdefault(bucket_of(window), []).append(index)
        self.seed, self.per_update = seed, per_update
        self._drawn = np.empty(0, dtype=np.int64)  # the bucket of each update, as far as it was asked for
        self.buckets = [groups[bucket] for bucket in sorted(groups)]
        self._ends = np.cumsum([len(bucket) for bucket in self.buckets])

    def draw(self, update: int, first: int, count: int) -> list[int]:
        """Indices of the windows ``first`` to ``first + count`` of an update; all updates' windows share a bucket."""
        if self.per_update:
            return self._draw_in_order(update, first, count)
        rng = np.random.default_rng([self.seed, update])
        bucket = self.buckets[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
        order = rng.permutation(len(bucket))
        return [bucket[int(order[(first + i) % len(bucket)])] for i in range(count)]

    def _draw_in_order(self, update: int, first: int, count: int) -> list[int]:
        number = int(self._bucket_numbers(update)[update])
        bucket = self.buckets[number]
        earlier = int((self._drawn[:update] == number).sum())
        made, orders = [], {}
        for place in range(earlier * self.per_update + first, earlier * self.per_update + first + count):
            epoch, at = divmod(place, len(bucket))
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([self.seed, _EPOCH, number, epoch]).permutation(len(bucket))
            made.append(bucket[int(orders[epoch][at])])
        return made

    def _bucket_numbers(self, update: int) -> np.ndarray:
        """The bucket of every update up to this one; drawn by thousands, so that a late one costs little."""
        while len(self._drawn) <= update:
            rng = np.random.default_rng([self.seed, _BUCKETS, len(self._drawn)])
            more = np.searchsorted(self._ends, rng.integers(self._ends[-1], size=_AT_ONCE), side="right")
            self._drawn = np.concatenate([self._drawn, more])
        return self._drawn


def draw_windows(windows: Sequence[Window], seed: int, update: int, first: int, count: int) -> list[int]:
    """:meth:`ClipSampler.draw` for a single use: indices into ``windows`` of ``count`` windows of one bucket."""
    return ClipSampler(windows, seed).draw(update, first, count)
