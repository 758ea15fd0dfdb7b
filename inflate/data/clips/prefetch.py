"""Clips read ahead by worker processes, for training without a cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inflate.data.clips.clips import ClipSet
from inflate.data.clips.drawing import ClipSampler
from inflate.errors import InputError
from inflate.workers import end_with_parent

Place = tuple[int, int, int]  # update, first, count


@dataclass(frozen=True)
class ClipsBatch:
    """Some of an update's clips: ``indices`` into the clip set, ``frames`` uint8 (B, F, H, W, 3) on the CPU."""

    update: int
    first: int
    indices: tuple[int, ...]
    frames: Tensor


class _Read(Dataset):
    """Draws and reads in a worker; its items are places, not numbers."""

    def __init__(self, clips: ClipSet, indices: Sequence[int], seed: int, per_update: int) -> None:
        self.clips, self.indices = clips, tuple(indices)
        self.sampler = ClipSampler([clips.windows[index] for index in self.indices], seed, per_update)

    def __getitem__(self, place: Place) -> Any:
        update, first, count = place
        drawn = tuple(self.indices[n] for n in self.sampler.draw(update, first, count))
        try:
            frames = np.stack([self.clips.read(index) for index in drawn])
        except InputError as error:
            return str(error)  # exceptions lose their class on the way out of a worker
        return ClipsBatch(update, first, drawn, torch.from_numpy(frames))


class _Plan:
    """The places of one process from ``start`` on, for ever: ``step`` apart in an update, and the next update alike."""

    def __init__(self, start: Place, batch_size: int, micro_batches: int, processes: int) -> None:
        self.start, self.batch_size, self.micro_batches = start, batch_size, micro_batches
        self.step = batch_size * processes

    def __iter__(self) -> Iterator[Place]:
        update, first, _ = self.start
        micro = first // self.step % self.micro_batches
        base = first - micro * self.step
        while True:
            while micro < self.micro_batches:
                yield update, base + micro * self.step, self.batch_size
                micro += 1
            update, micro = update + 1, 0


class PrefetchedClips:
    """Batches of ``indices`` (all windows of the training split by default) as ``draw_windows`` draws them; with
    ``in_order`` as a :class:`ClipSampler` that goes through them epoch by epoch.

    :meth:`batch` gives what is asked for, whatever it is; places asked for in order are read ahead by ``workers``
    processes, ``ahead`` batches each: ``micro_batches`` of ``batch_size`` an update, as far apart as ``processes`` that
    train share an update out, then the next update. Any other place begins a new run ahead from there. What a batch
    holds depends on the seed and its place alone, not on the number of workers. Processes are started afresh, so that
    a calling script needs its ``__main__`` guard.
    """

    def __init__(
        self,
        clips: ClipSet,
        seed: int,
        batch_size: int,
        micro_batches: int = 1,
        indices: Sequence[int] | None = None,
        workers: int = 2,
        ahead: int = 2,
        processes: int = 1,
        in_order: bool = False,
    ) -> None:
        chosen = clips.select("train") if indices is None else indices
        self._read = _Read(clips, chosen, seed, batch_size * micro_batches * processes if in_order else 0)
        self._processes = processes
        self._batch_size, self._micro_batches = batch_size, micro_batches
        self._workers, self._ahead = workers, ahead
        self._running: Iterator[Any] | None = None
        self._next: Iterator[Place] | None = None
        self._expected: Place | None = None

    def batch(self, update: int, first: int = 0, count: int | None = None) -> ClipsBatch:
        """The windows ``first`` to ``first + count`` of ``update`` with their frames.

        Raises:
            InputError: a file is gone or changed.
        """
        place = (update, first, self._batch_size if count is None else count)
        if self._workers == 0 or place[2] != self._batch_size:
            return _checked(self._read[place])
        if self._running is None or place != self._expected:
            self.close()
            plan = _Plan(place, self._batch_size, self._micro_batches, self._processes)
            self._next = iter(plan)
            self._expected = next(self._next)
            loader = DataLoader(
                self._read,
                batch_size=None,
                sampler=plan,  # type: ignore[arg-type]  # any iterable of items will do
                num_workers=self._workers,
                prefetch_factor=self._ahead,
                multiprocessing_context=_context(),
                worker_init_fn=_begin,
            )
            self._running = iter(loader)
        assert self._next is not None
        found = next(self._running)
        self._expected = next(self._next)
        return _checked(found)

    def close(self) -> None:
        """End the worker processes."""
        self._running = self._next = self._expected = None


def _begin(worker: int) -> None:
    # torch watches the worker's parent, which is the fork server, and that one waits for its workers.
    end_with_parent()


def _context() -> Any:
    """Workers are forked off a small server that has loaded torch once; where there is none, each loads it."""
    if "forkserver" not in get_all_start_methods():
        return "spawn"
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _checked(found: Any) -> ClipsBatch:
    if isinstance(found, str):
        raise InputError(found)
    return found
