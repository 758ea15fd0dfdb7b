"""One video being made: where it is, what there is of it already, and how it ended; and the cascades that make it."""

import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from inflate.cancelling import CancelledError, cancellable, check_cancelled
from inflate.cascade import Cascade, Progress
from inflate.errors import InputError
from inflate.page.estimate import Countdown, Mark, Paces
from inflate.page.files import Written
from inflate.page.offered import Offered

Phase = Literal["waiting", "running", "done", "failed", "cancelled"]

VISITED_KEPT = 2  # models of visitors' choice in memory at a time
_BEFORE, _AFTER = 0.03, 0.9  # shares of the work between which the chain runs: reading comes before it, writing after
_STAGE_NAMES = {
    "prior": "picture idea (P)",
    "decoder": "key frames (D)",
    "interpolation": "frames between (↑F)",
    "super_resolution": "super-resolution (SR_l)",
    "upscaler": "fine detail (SR_h)",
}


@dataclass(frozen=True)
class Status:
    """Where a job is: a share from 0 to 1, seconds since its start, seconds left if that can be told, and a line."""

    fraction: float
    elapsed: float
    left: float | None
    line: str


@dataclass(frozen=True)
class Result:
    """A finished video: its files, two pictures to compare if it was enlarged, and how it came about."""

    title: str
    written: Written
    compared: tuple[str, str] | None
    num_frames: int
    seconds: float
    seed: int
    left_out: str = ""  # a sentence, where something of an upload is not in the video
    ended: float = field(default_factory=time.monotonic)  # as time.monotonic() counts


class Job:
    """``work(job)`` makes the video in the thread that calls :meth:`run`; others look at the job meanwhile.

    ``kind``: jobs of one kind take about as long. ``preview``: a file with the frames so far. ``wrong``: the sentence
    for the visitor where it failed.
    """

    def __init__(self, kind: str, title: str, work: Callable[["Job"], Result], paces: Paces) -> None:
        self.kind, self.title, self.work = kind, title, work
        self.phase: Phase = "waiting"
        self.preview: str | None = None
        self.result: Result | None = None
        self.wrong = ""
        self._line, self._fraction = "starting", 0.0
        self._marks: list[Mark] = []
        self._paces = paces
        self._countdown = Countdown(paces.of(kind))
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._start = 0.0

    def cancel(self) -> None:
        """Ask it to stop; if it runs, it does so before its next layer, frame or file."""
        self._cancelled.set()

    @property
    def unwanted(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled.is_set()

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, ``seconds`` at most; whether it has."""
        return self._ended.wait(seconds)

    def run(self) -> None:
        """Do the work, in this thread; every failure becomes a sentence, and those unforeseen are logged too."""
        self._start, self.phase = time.monotonic(), "running"
        try:
            with cancellable(self._cancelled.is_set):
                check_cancelled()
                self.result = self.work(self)
            self._paces.learn(self.kind, self._marks, time.monotonic() - self._start)
            self._fraction, self.phase = 1.0, "done"
        except CancelledError:
            self.phase = "cancelled"
        except InputError as error:
            self.wrong, self.phase = str(error), "failed"
        except Exception:  # the thread's last word: whatever it is, the page must hear of it
            traceback.print_exc()
            self.wrong = "Something went wrong on the server; please try again with other settings."
            self.phase = "failed"
        finally:
            self._ended.set()

    def elapsed(self) -> float:
        """Seconds since it began to run; 0 before."""
        return time.monotonic() - self._start if self._start else 0.0

    def usual_seconds(self) -> float | None:
        """What jobs like it took, or others if there were none; None before any."""
        return self._paces.seconds(self.kind)

    def tell(self, line: str, fraction: float) -> None:
        """Say what it does, and how much of the work is done; what was said of that before stays if it was more."""
        self._line = line
        if fraction > self._fraction:
            self._fraction = fraction
            self._marks.append((fraction, self.elapsed()))

    def tell_writing(self, share: float) -> None:
        """That ``share``, from 0 to 1, of the files are written."""
        self.tell("writing files", _AFTER + (1 - _AFTER) * min(0.99, share))

    def status(self) -> Status:
        """Where it is now."""
        elapsed = self.elapsed()
        return Status(self._fraction, elapsed, self._countdown.left(elapsed, self._fraction), self._line)

    def on_step(self, cascade: Cascade, step: int, timestep: Any, values: dict[str, Any]) -> None:
        """What a cascade calls after each of its steps."""
        progress: Progress = values["progress"]
        name = _STAGE_NAMES.get(progress.stage, progress.stage)
        line = f"{name}: step {progress.step + 1} of {progress.num_steps}"
        self.tell(line, _BEFORE + (_AFTER - _BEFORE) * progress.fraction)


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
