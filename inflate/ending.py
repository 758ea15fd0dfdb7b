"""A signal that asks a process to end becomes an exception, so that what is half made is removed on the way out."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ASKING = ("SIGTERM", "SIGHUP")
"""Signals by which systems ask a process to end; not all systems have both."""


class EndedError(BaseException):
    """A signal asked the process to end; no Exception, so that nothing which skips a bad file takes it for one."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@contextmanager
def raising_at(names: Sequence[str] = ASKING) -> Iterator[None]:
    """Leave the block by :class:`EndedError` at the first of these signals; a second one ends the process at once.

    Signals that somebody had the process ignore (``nohup``) stay ignored. Only the main thread can listen; in any other
    nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, before = os.getpid(), {}

    def hear(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker process has inherited this handler
            end_by(number)
            return
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise EndedError(number)

    for name in names:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_by(number: int) -> None:
    """End this process as the signal does where nobody listens."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
