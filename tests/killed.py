"""Processes that come to a certain point and are killed there, a little later, or not; by what they do, not by time."""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
# What a script calls at its point: it says so, and waits until it may go on.
_PAUSE = """
import sys
def pause(*_):
    print("here", flush=True)
    sys.stdin.readline()
"""
# What a script calls to be killed in the midst of what it does next: so many calls of functions later.
KILL_AFTER = """
import os, signal, sys
def kill_after(calls):
    left = [calls]
    def count(*_):
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)
"""


class Paused:
    """A script in a process of its own, which has come to its first ``pause()`` when the block begins."""

    def __init__(self, script: str, *arguments: str | Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", _PAUSE + script, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = self.process.pid

    def __enter__(self) -> "Paused":
        assert self.process.stdout
        assert self.process.stdout.readline() == "here\n", "it ended before its point"
        return self

    def go_on(self) -> None:
        """Let it run to its end."""
        assert self.process.stdin
        self.process.stdin.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()
