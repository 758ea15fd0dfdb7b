"""Several processes that train one model: the first prepares, speaks and writes; where one ends, all of them end.

Collective operations alone do not do this. They wait for a process that is gone until their own time limit, and that
must be long, for the first process may sample or encode for hours while the others wait. So every process beats in the
store that brought them together, and a thread of each watches the others.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from inflate.errors import InputError, StoppedError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a collective operation waits; whoever is gone is noticed otherwise."""
_BEAT_SECONDS, _GONE_SECONDS = 1.0, 20.0
_SAME_ERROR_SECONDS = 5.0  # within which all processes run into one and the same mistake
_STORE_SECONDS = 10.0
_runs = 0  # trainings of this process one after the other, each with keys of its own


def process_count() -> int:
    """How many processes train together; 1 outside of torchrun and its like."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Together:
    """The processes of a run, from the inside of one of them; for a single process nothing but what it says.

    Used as a context, around everything from the preparation to the end.

    Raises (from the context):
        InputError, StoppedError: as the block does, in the first process.
        SystemExit: the same in any other, if the first one says it too, with the code it ends with.
    """

    def __init__(self) -> None:
        global _runs
        _runs += 1
        self.rank, self.count = (dist.get_rank(), process_count()) if process_count() > 1 else (0, 1)
        self._store: Any = None if self.count == 1 else _Board(_runs)
        self._others = [other for other in range(self.count) if other != self.rank]
        self._places: dict[int, str] = {}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="inflate-together", daemon=True)

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def first_alone(self, build: Callable[[], T]) -> T:
        """``build()`` in the first process, and when that is done in the others, which find what it has written."""
        if self._store is None:
            return build()
        if self.first:
            made = build()
            self._store.add("built", 1)
            return made
        while not self._store.add("built", 0) and not self._store.closed:
            if left := self._left(0):
                raise SystemExit(left[0])
            time.sleep(0.1)
        return build()

    def __enter__(self) -> "Together":
        if self._store is not None:
            self._store.set(f"place/{self.rank}", f"{os.getpid()}@{socket.gethostname()}")
            self._wait(_GONE_SECONDS, self._found_all)
            self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._store is None:
            return
        if isinstance(error, RuntimeError):  # a collective's, if somebody is gone: the watching thread ends this one
            self._wait(_GONE_SECONDS + 2 * _BEAT_SECONDS, self._somebody_left)
            if self._somebody_left():
                self._wait(_SAME_ERROR_SECONDS + 5 * _BEAT_SECONDS, lambda: False)
        code = error.exit_code if isinstance(error, StoppedError) else 2 if isinstance(error, InputError) else 1
        how = (0, "") if error is None else (code, f"{type(error).__name__}: {error}")
        self._over.set()
        self._store.set(f"left/{self.rank}", json.dumps(how))
        if self.first:  # whose process may hold the store that the others still ask
            self._wait(_SAME_ERROR_SECONDS, self._all_asked)
            return
        told = isinstance(error, InputError | StoppedError)
        if told:
            self._wait(_SAME_ERROR_SECONDS, lambda: self._left(0) is not None or self._is_gone(0))
            told = self._left(0) in (how, None)
        self._store.set(f"asked/{self.rank}", "")
        if told:
            raise SystemExit(code) from None

    def _left(self, other: int) -> tuple[int, str] | None:
        """With which exit code and sentence a process has left the block, or None."""
        found = self._store.get(f"left/{other}")
        return tuple(json.loads(found)) if found else None

    def _found_all(self) -> bool:
        """Whether it is known of all the others where they run."""
        for other in self._others:
            if other not in self._places and (place := self._store.get(f"place/{other}")):
                self._places[other] = place
        return len(self._places) == len(self._others) or self._store.closed

    def _somebody_left(self) -> bool:
        return any(left[0] for other in self._others if (left := self._left(other)) is not None)

    def _all_asked(self) -> bool:
        return all(self._store.get(f"asked/{other}") is not None or self._is_gone(other) for other in self._others)

    def _wait(self, seconds: float, until: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            time.sleep(0.1)

    # The watching thread

    def _look(self) -> None:
        beats, seen = dict.fromkeys(self._others, -1), dict.fromkeys(self._others, time.monotonic())
        while not self._over.wait(_BEAT_SECONDS):
            # Those of this machine first: with one of them the store may be gone, which torch would report at length.
            for other in list(beats):
                if self._is_gone(other) and not self._left_for_good(other, beats):
                    self._end(f"{self._named(other)} is gone")
            self._store.add(f"beat/{self.rank}", 1)
            for other in list(beats):
                beat, now = self._store.add(f"beat/{other}", 0), time.monotonic()
                if beat != beats[other]:
                    beats[other], seen[other] = beat, now
                if not self._left_for_good(other, beats) and now - seen[other] > _GONE_SECONDS:
                    self._end(f"{self._named(other)} is gone")
            if self._store.closed:
                self._end("The process that keeps the others together is gone")

    def _left_for_good(self, other: int, beats: dict[int, int]) -> bool:
        """Whether a process has left the block; at its end, or with an error, which this one is about to meet too."""
        if other == 0 and self._is_gone(0):  # and perhaps the store with it
            return False
        left = self._left(other)
        if left is None:
            return False
        if left[0] == 0:
            del beats[other]
        elif not self._over.wait(_SAME_ERROR_SECONDS):
            self._end("" if other == 0 else f"{self._named(other)} has ended ({left[1]})", left[0])
        return True

    def _named(self, other: int) -> str:
        where = self._places.get(other, "")
        return f"Process {other} of {self.count}{f' ({where})' if where else ''}"

    def _is_here(self, other: int) -> bool:
        return self._places.get(other, "").partition("@")[2] == socket.gethostname()

    def _is_gone(self, other: int) -> bool:
        """Whether a process of this very machine has ended; nothing is known of those elsewhere."""
        if not self._is_here(other) or os.name != "posix":
            return False
        number = self._places[other].partition("@")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def _end(self, sentence: str, code: int = 1) -> None:
        """End this process from its thread, whatever the main one waits for; on each machine the lowest that is left
        says why. A checkpoint that it was writing is not taken for one, as if it had been killed."""
        if self._over.is_set():
            return
        if sentence and not any(self._is_here(other) and not self._is_gone(other) for other in range(self.rank)):
            after = "all processes of the run end, and the same command goes on from its last checkpoint"
            print(f"error: {sentence}; {after}.", file=sys.stderr, flush=True)
            time.sleep(2.5 * _BEAT_SECONDS)  # so that the others see who went first
        os._exit(code)


class _Board:
    """The store that brought the processes together, by a connection of our own: a store's calls wait for each other,
    and the group's may be waiting. Once it is ``closed``, with the process that had it, nothing is asked of it again.
    """

    def __init__(self, run: int) -> None:
        place, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
        if not place or not port.isdecimal():
            raise InputError(
                "Processes that train together need MASTER_ADDR and MASTER_PORT; start them with torchrun or with "
                "accelerate launch, which set them."
            )
        patience = timedelta(seconds=_STORE_SECONDS)
        store = dist.TCPStore(place, int(port), is_master=False, wait_for_workers=False, timeout=patience)
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(f"inflate/{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{again}/{run}", store)
        self._lock, self.closed = threading.Lock(), False

    def set(self, key: str, value: str) -> None:
        """Write."""
        self._ask(lambda: self._store.set(key, value))

    def get(self, key: str) -> str | None:
        """Read; None where nothing was written yet."""
        return self._ask(lambda: self._store.get(key).decode() if self._store.check([key]) else None)

    def add(self, key: str, count: int) -> int:
        """Count on from 0, and say how far."""
        return self._ask(lambda: self._store.add(key, count)) or 0

    def _ask(self, question: Callable[[], T]) -> T | None:
        with self._lock:
            if self.closed:
                return None
            try:
                return question()
            except RuntimeError:
                self.closed = True
                return None


@contextmanager
def quiet_unless(first: bool) -> Iterator[None]:
    """No progress bars of loading libraries in any process but the first."""
    if first:
        yield
        return
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.enable_progress_bar()
        of_transformers.enable_progress_bar()
