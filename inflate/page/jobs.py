"""One video being made: a cascade in a thread of its own, telling what happens and stopping when asked."""

import queue
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inflate.cascade import Cascade, CascadeOutput, Progress
from inflate.errors import InputError
from inflate.page.offered import Offered
from inflate.stages import CancelledError, ChainState
from inflate.video import to_uint8

VISITED_KEPT = 2  # models of visitors' choice in memory at a time

_POLL_SECONDS = 0.5
_STATUS_SECONDS = 0.2  # between two statuses: a page takes longer to show one than a quick step takes
_STAGE_NAMES = {
    "prior": "picture idea (P)",
    "decoder": "key frames (D)",
    "interpolation": "frames between (↑F)",
    "super_resolution": "super-resolution (SR_l)",
    "upscaler": "fine detail (SR_h)",
}


@dataclass(frozen=True)
class Preview:
    """What a stage has just made: uint8 frames (F, H, W, 3) at ``fps``."""

    stage: str
    frames: np.ndarray
    fps: float


@dataclass(frozen=True)
class Status:
    """Where the job is: a share from 0 to 1, seconds since the start, seconds left if that can be told, and a line."""

    fraction: float
    elapsed: float
    left: float | None
    line: str


@dataclass(frozen=True)
class Made:
    """The end of a job: the video, and the seconds it took."""

    frames: np.ndarray
    fps: float
    seconds: float


@dataclass(eq=False)
class Job:
    """Runs ``make(options)`` in a thread, where ``options`` hold the callbacks that a cascade's methods take.

    Iterating over :meth:`events` ends with :class:`Made`, or raises what went wrong.
    """

    make: Callable[[dict[str, Any]], CascadeOutput]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the job to stop; it does so at its next step."""
        self.cancelled.set()

    def events(self) -> Generator[Status | Preview | Made, None, None]:
        """What happens, as it happens; a status at least twice a second, and at most five times.

        Raises:
            InputError: the cascade refused its input.
            CancelledError: :meth:`cancel` was called.
            RuntimeError: anything else; the traceback goes to the server's log.
        """
        told: queue.Queue[Any] = queue.Queue()
        self._start = time.monotonic()
        thread = threading.Thread(target=self._run, args=(told,), daemon=True)
        thread.start()
        last, shown = Status(0.0, 0.0, None, "starting"), self._start
        try:
            while True:
                try:
                    event = told.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    event = self._status(last.fraction, last.line)
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, Status):
                    last, now = event, time.monotonic()
                    # Old news would pile up and stand between the user and what has happened since.
                    if self.cancelled.is_set() or now - shown < _STATUS_SECONDS:
                        continue
                    shown = now
                yield event
                if isinstance(event, Made):
                    return
        finally:
            # Reached too when nobody listens any more: a closed tab closes the generator.
            self.cancel()

    def _run(self, told: "queue.Queue[Any]") -> None:
        options = {
            "callback_on_step_end": lambda cascade, step, timestep, values: self._step(told, values["progress"]),
            "callback_on_stage_end": lambda cascade, name, state: self._stage(told, name, state),
            "output_type": "pt",
        }
        try:
            out = self.make(options)
            assert isinstance(out.frames, torch.Tensor)
            frames = to_uint8(out.frames.transpose(1, 2) * 2 - 1)[0]
            told.put(Made(frames, out.fps, time.monotonic() - self._start))
        except (InputError, CancelledError) as error:
            told.put(error)
        except Exception:  # the thread's last word: whatever it is, the page must hear of it
            traceback.print_exc()
            told.put(RuntimeError("Something went wrong on the server; please try again with other settings."))

    def _step(self, told: "queue.Queue[Any]", progress: Progress) -> bool:
        name = _STAGE_NAMES.get(progress.stage, progress.stage)
        line = f"{name}: step {progress.step + 1} of {progress.num_steps}"
        told.put(self._status(progress.fraction, line))
        return not self.cancelled.is_set()

    def _stage(self, told: "queue.Queue[Any]", name: str, state: ChainState) -> bool:
        if state.frames is not None:
            told.put(Preview(name, to_uint8(state.frames[:1])[0], state.fps))
        return not self.cancelled.is_set()

    def _status(self, fraction: float, line: str) -> Status:
        elapsed = time.monotonic() - self._start
        left = elapsed / fraction - elapsed if fraction > 0.02 else None
        return Status(fraction, elapsed, left, line)


class Models:
    """The cascades a server has opened, by the folder or name they were asked for.

    ``offered`` is the folder below which visitors may open more.
    """

    def __init__(
        self, device: str | None = None, dtype: torch.dtype | None = None, offered: Path | None = None
    ) -> None:
        self.device, self.dtype, self.offered = device, dtype, Offered(offered)
        self._open: dict[str, Cascade] = {}
        self._visited: OrderedDict[str, Cascade] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Cascade:
        """The cascade of that folder or name, opened once; its stages stay in memory between calls.

        Raises:
            InputError: there is none, or it is damaged.
        """
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opened(name)
            return self._open[name]

    def for_visitor(self, name: str) -> Cascade:
        """A cascade that is served, or one that is offered; of those the last ``VISITED_KEPT`` stay in memory.

        Raises:
            InputError: it is neither, or damaged.
        """
        with self._lock:
            if name in self._open:
                return self._open[name]
            folder = str(self.offered.folder(name))
            if folder not in self._visited:
                try:
                    self._visited[folder] = self._opened(folder)
                except InputError as error:  # the server's own path is nobody's business
                    raise InputError(str(error).replace(folder, name)) from error
            self._visited.move_to_end(folder)
            if len(self._visited) > VISITED_KEPT:
                self._visited.popitem(last=False)
            return self._visited[folder]

    def _opened(self, name: str) -> Cascade:
        return Cascade.from_pretrained(name, self.device, self.dtype, keep_loaded=True)

    def add(self, name: str, cascade: Cascade) -> None:
        """Serve a ready cascade under a name."""
        with self._lock:
            self._open[name] = cascade
