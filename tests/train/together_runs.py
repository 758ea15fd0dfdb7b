"""What the processes of :mod:`tests.train.together` do; each takes its rank, a folder for notes, what it is told."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from inflate.cli.app import main
from inflate.errors import InputError, StoppedError
from inflate.train import loop, together
from inflate.train.steps.video import VideoStep
from tests.train import toy


def _exit_code(arguments: Any) -> int:
    """Train a toy recipe as the command line would: sentences on standard error, and codes."""
    recipe = toy.toy_recipe(
        Path(arguments["output"]),
        arguments.get("options"),
        arguments.get("step", "toy"),
        **arguments.get("train", {}),
    )
    try:
        loop.train(recipe, device="cpu", quiet=arguments.get("quiet", False))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StoppedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def train(rank: int, place: Path, told: dict[str, Any]) -> int:
    """A toy's training; what each process opens to write is noted."""
    written: list[str] = []

    def note(event: str, arguments: Any) -> None:
        if (
            event == "open"
            and isinstance(arguments[0], str | bytes | os.PathLike)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            written.append(os.fsdecode(arguments[0]))

    sys.addaudithook(note)
    code = _exit_code(told)
    found = [name for name in written if name.startswith(told["output"])]
    (place / f"{rank}.json").write_text(json.dumps({"written": found}))
    return code


def train_until_marked(rank: int, place: Path, told: dict[str, Any]) -> int:
    """The same, with a file ``told["at"]`` once an update is done; the ranks ``told["stuck"]`` then take for ever over
    something that no signal interrupts, as one that waits for a card or a disk does."""
    keep = loop._Run._keep

    def keeping(run: Any, done: int, *rest: Any) -> None:
        keep(run, done, *rest)
        if done == told["update"]:
            if rank in told.get("stuck", []):
                Path(told["at"]).touch()
                time.sleep(600)
            if rank == told["kill"]:
                Path(told["at"]).touch()

    setattr(loop._Run, "_keep", keeping)  # noqa: B010
    return _exit_code(told)


def wait_for_the_first(rank: int, place: Path, told: dict[str, Any]) -> int:
    """The first process takes for ever over its preparation, and the others wait for it."""
    build = loop.build_step

    def building(*arguments: Any) -> Any:
        if rank == 0:
            Path(told["at"]).touch()
            time.sleep(600)
        return build(*arguments)

    setattr(loop, "build_step", building)  # noqa: B010
    return _exit_code(told)


def prepare_in_turn(rank: int, place: Path, told: dict[str, Any]) -> int:
    """Notes when each process builds its step."""
    build = loop.build_step

    def building(*arguments: Any) -> Any:
        begun = time.monotonic()
        time.sleep(0.5)
        made = build(*arguments)
        (place / f"{rank}.json").write_text(json.dumps([begun, time.monotonic()]))
        return made

    setattr(loop, "build_step", building)  # noqa: B010
    return _exit_code(told)


def fail_alone(rank: int, place: Path, told: dict[str, Any]) -> int:
    """The second process meets a mistake in its third update that no other does."""
    update = loop._Run._update

    def updating(run: Any, number: int) -> Any:
        if rank == 1 and number == 2:
            raise InputError("the disk of this machine alone is full")
        return update(run, number)

    setattr(loop._Run, "_update", updating)  # noqa: B010
    return _exit_code(told)


def finetune(rank: int, place: Path, told: dict[str, Any]) -> int:
    """The command itself; every process notes which clips it draws."""
    drawn: list[list[int]] = []
    before = VideoStep._drawn

    def noting(step: VideoStep, numbers: Any, update: int, first: int, count: int) -> Any:
        found = before(step, numbers, update, first, count)
        drawn.append([update, first, *found[0]])
        return found

    setattr(VideoStep, "_drawn", noting)  # noqa: B010
    code = main(["finetune", *told["arguments"]])
    (place / f"{rank}.json").write_text(json.dumps(drawn))
    return code


def beat_only(rank: int, place: Path, told: dict[str, Any]) -> int:
    """A process that stands still: it lives, and its beats have stopped."""
    torch.distributed.init_process_group("gloo")
    together._GONE_SECONDS = told["patience"]
    with together.Together():
        if rank == 1:
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
    return 0
