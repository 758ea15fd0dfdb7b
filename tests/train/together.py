"""Processes that train together, forked off one that has loaded torch: each start takes a second and not ten.

``python -m tests.train.together`` reads one line of JSON for each run from its standard input, forks so many processes,
each with its own standard output and error, and says how each ended. They are whole processes of their own, which torch
brings together as torchrun's would be, but without an agent that ends the others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How one process ended: its exit code (below 0 a signal's number), what it printed, and after how many seconds."""

    code: int
    out: str
    err: str
    seconds: float


class Starter:
    """Starts runs of several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.train.together"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        )

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()

    def run(self, processes: int, what: str, **told: Any) -> list[Ended]:
        """Run the function ``what`` of :mod:`tests.train.together_runs` in so many processes.

        ``told`` is its arguments; some are for the starter: ``kill`` is the rank that is sent ``signal`` (9) once the
        file ``at`` is there; once the rank ``until`` has ended, the others are killed.
        """
        self.number += 1
        place = self.folder / f"run{self.number}"
        place.mkdir(parents=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([processes, what, str(place), told]) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, "the starter has ended"
        ends = json.loads(said)
        return [
            Ended(code, (place / f"{rank}.out").read_text(), (place / f"{rank}.err").read_text(), seconds)
            for rank, (code, seconds) in enumerate(ends)
        ]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _child(rank: int, processes: int, port: int, what: str, place: Path, told: dict[str, Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / f"{rank}.{name}", os.O_CREAT | os.O_WRONLY), number)
    from tests.train import together_runs

    code = 1
    try:
        code = getattr(together_runs, what)(rank, place, told)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # whatever it is: nothing else will show it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _start(processes: int, what: str, place: Path, told: dict[str, Any]) -> list[tuple[int, float]]:
    port, children = _free_port(), []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            _child(rank, processes, port, what, place, told)
        children.append(child)
    ends: dict[int, tuple[int, float]] = {}
    at, victim, begun = told.get("at"), told.get("kill", 0), time.monotonic()
    while len(ends) < processes:
        if at and Path(at).exists():
            os.kill(children[victim], told.get("signal", signal.SIGKILL))
            at, begun = None, time.monotonic()
        if told.get("until") in ends:
            for rank in set(range(processes)) - set(ends):
                os.kill(children[rank], signal.SIGKILL)
        for rank, child in enumerate(children):
            if rank not in ends:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    ends[rank] = os.waitstatus_to_exitcode(status), time.monotonic() - begun
        time.sleep(0.02)
    return [ends[rank] for rank in range(processes)]


def main() -> None:
    """Load what runs need, then start what is asked for."""
    import torch

    torch.set_num_threads(1)
    from tests.train import together_runs  # noqa: F401  # loaded once, before the forks

    for line in sys.stdin:
        processes, what, place, told = json.loads(line)
        print(json.dumps(_start(processes, what, Path(place), told)), flush=True)


if __name__ == "__main__":
    main()
