"""One process per run folder, and a run that is asked to stop: at once in preparation, then after an update."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from inflate.ending import EndedError, end_by, raising_at
from inflate.errors import StoppedError
from inflate.staging import held


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock`` inside the block. The kernel releases it however the process ends, also by SIGKILL.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock", f"is training in {folder}; wait for it, stop it, or choose another `output`"):
        yield


class StopRequest:
    """Whether somebody has asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._owner = os.getpid()
        self._before: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def listen(self) -> None:
        """Take over SIGTERM and Ctrl-C; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_listening(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a worker of a DataLoader has inherited this handler
            if number == signal.SIGTERM:
                end_by(number)
            return  # Ctrl-C reaches workers, too; their batches are still wanted for the update that is running
        self.signal_number = number
        self.stop_listening()  # a second signal ends the process at once


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen for SIGTERM and Ctrl-C inside the block."""
    request = StopRequest()
    request.listen()
    try:
        yield request
    finally:
        request.stop_listening()


@contextmanager
def stop_at_once(sentence: str) -> Iterator[None]:
    """Leave the block at SIGTERM or Ctrl-C, with what `finally` does on the way.

    Raises:
        StoppedError: with ``sentence``.
    """
    try:
        with raising_at(("SIGINT", "SIGTERM")):
            yield
    except EndedError as ended:
        raise StoppedError(sentence, ended.signal_number) from None
