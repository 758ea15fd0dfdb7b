"""Kill commands at random moments, by SIGTERM and SIGKILL in turns, and look at what they leave.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 100 --output benchmarks/kills.json

Each command is a process forked from this one, which has read the libraries, with a session and a folder of its own.
After each kill no process of the session may be left, and what has the output's name must be whole; after SIGTERM
nothing else may be there, and after SIGKILL nothing else once the same command has run to its end.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from inflate.checkpoint import inspect, load
from inflate.cli.app import main
from inflate.data import FrameCache, build_frame_cache, decode_video
from inflate.data.writing import write_video
from inflate.ending import EndedError, raising_at

PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Command:
    """``run`` makes files and folders where it is told; ``checks`` has what raises for each that is not whole."""

    run: Callable[[Path], int]
    checks: dict[str, Callable[[Path], object]]


def generate(folder: Path) -> int:
    """A video of the bundled model's first stages."""
    few = ["--frames", "4", "--steps", "prior=2,decoder=2", "--until", "decoder", "--device", "cpu"]
    return main(["generate", "red heart", "-o", str(folder / "out.mp4"), *few])


def write(folder: Path) -> int:
    """Two files of given frames, as every command that makes a video ends."""
    frames = np.random.default_rng(0).integers(0, 256, (48, 96, 128, 3), dtype=np.uint8)
    try:
        with raising_at():  # as every command does
            write_video(folder / "out.mp4", frames, 24)
            write_video(folder / "out.webp", frames, 24)
    except EndedError:
        return 143
    return 0


def convert(folder: Path) -> int:
    """A small image model, inflated."""
    return main(["convert", str(folder.parent / "image"), str(folder / "out"), "--scheme", "make-a-video"])


def cache(folder: Path) -> int:
    """Frames of twelve videos, decoded by two processes."""
    try:
        with raising_at():  # as every command does
            build_frame_cache(folder.parent / "videos", 64, folder / "out", workers=2)
    except EndedError:
        return 143
    return 0


COMMANDS = {
    "generate": Command(generate, {"out.mp4": decode_video, "out.sheet.png": decode_video}),
    "write": Command(write, {"out.mp4": decode_video, "out.webp": decode_video}),
    "convert": Command(convert, {"out": lambda path: (inspect(path), load(path))}),
    "cache": Command(cache, {"out": lambda path: FrameCache.open(path).frames[-1]}),
}
# Quick ones more often; an odd number, so that each meets both signals.
TURNS = ("write", "convert") * 4 + ("write", "cache", "generate")


def prepare(root: Path) -> None:
    """What the commands work on."""
    torch.manual_seed(0)
    sizes = {"sample_size": 16, "block_out_channels": (64, 64), "layers_per_block": 2, "cross_attention_dim": 32}
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    UNet2DConditionModel(**sizes, **blocks, attention_head_dim=8).save_pretrained(root / "image")  # pyright: ignore[reportArgumentType]  # diffusers' defaults are of narrower types
    (root / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (24, 120, 160, 3), dtype=np.uint8)
    for number in range(12):
        write_video(root / "videos" / f"{number}.mp4", np.roll(frames, number, 0), 24)


def begin(command: Command, folder: Path) -> int:
    """Start the command in a process with a session of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        place = folder.parent / "tmp"
        tempfile.tempdir = os.environ["TMPDIR"] = str(place)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = command.run(folder)
    finally:
        os._exit(code)


def session(number: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, theirs = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(theirs) == number and state != "Z":
            found.append(int(path.parent.name))
    return found


def left_running(number: int) -> list[int]:
    """Those that have not ended within a while."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (found := session(number)) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def others(folder: Path, command: Command) -> list[str]:
    """What lies in the folders of a command beside what it makes."""
    there = [path for path in folder.iterdir() if path.name not in command.checks]
    return sorted(str(path) for path in [*there, *(folder.parent / "tmp").iterdir()])


def kill_one(name: str, root: Path, seconds: float, number: int) -> tuple[list[str], bool]:
    """Kill a command after ``seconds``; returns what is wrong then, and whether it was still running."""
    command, folder = COMMANDS[name], root / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(root / "tmp", ignore_errors=True)
    folder.mkdir()
    (root / "tmp").mkdir()
    child = begin(command, folder)
    time.sleep(seconds)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    wrong = [f"process {one} still runs" for one in left_running(child)]
    wrong += not_whole(command, folder)
    if number == signal.SIGKILL:
        for path in (folder / name for name in command.checks):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _, again = os.waitpid(begin(command, folder), 0)
        if again:
            wrong.append(f"run again, it ended with {again}")
        wrong += not_whole(command, folder)
    wrong += [f"{path} was left" for path in others(folder, command)]
    return wrong, status != 0


def not_whole(command: Command, folder: Path) -> list[str]:
    """What a command has made that cannot be read."""
    wrong = []
    for name, check in command.checks.items():
        try:
            if (folder / name).exists():
                check(folder / name)
        except Exception as error:  # whatever a reader makes of half a file
            wrong.append(f"{name} is not whole: {error}")
    return wrong


def timed(name: str, root: Path) -> float:
    """Seconds that a command takes."""
    folder = root / "work"
    (root / "tmp").mkdir(exist_ok=True)
    folder.mkdir()
    start = time.monotonic()
    _, status = os.waitpid(begin(COMMANDS[name], folder), 0)
    assert status == 0, f"{name} ended with {status}"
    shutil.rmtree(folder)
    return time.monotonic() - start


def run(kills: int, output: Path | None) -> int:
    """Kill so often, say how it went, and return the number of kills that left something."""
    chosen, rows, faults = random.Random(0), [], []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        root = Path(folder)
        prepare(root)
        usual = {name: timed(name, root) for name in COMMANDS}
        for turn in range(kills):
            name, number = TURNS[turn % len(TURNS)], (signal.SIGTERM, signal.SIGKILL)[turn % 2]
            wrong, hit = kill_one(name, root, chosen.uniform(0, usual[name]), number)
            rows.append((name, number.name, hit))
            faults += [f"{turn} {name} {number.name}: {one}" for one in wrong]
            written = summary(rows, usual, faults)
            if output:
                output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
            print(turn, name, number.name, "hit" if hit else "had ended", wrong or "clean", flush=True)
    return len(faults)


def summary(rows: list[tuple[str, str, bool]], usual: dict[str, float], faults: list[str]) -> dict[str, object]:
    """How it went so far."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "torch": torch.__version__,
        "kills": len(rows),
        "hit while running": {f"{name} {by}": rows.count((name, by, True)) for name, by, _ in sorted(set(rows))},
        "usual seconds": {name: round(seconds, 2) for name, seconds in usual.items()},
        "left something": faults,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    sys.exit(1 if run(given.kills, given.output) else 0)
