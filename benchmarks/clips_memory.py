"""What preparing a folder of clips costs: peak memory, and the time of a second start from the kept scans.

Clips of 10 s at 512 x 512 and 24 frames a second are made with PyAV (each with pixels of its own, one cut, and sound
left out), then prepared in a process of its own, twice. Memory is the peak resident set of that process, of the largest
of its workers, and the sum of the first and all workers, which bounds what they held at once. The second start is timed
twice: the call alone, and the whole process with Python's start and all imports.

With ``--model``, ``inflate finetune`` itself is run twice on the clips for one update each, latents and texts being
encoded the first time: the most that all its processes held together (their proportional share of memory, read ten
times a second), and the seconds from the process's start to its first update.

    python benchmarks/clips_memory.py --clips 40
    python benchmarks/clips_memory.py --clips 2000 --folder /data/clips
    python benchmarks/clips_memory.py --clips 200 --model recipes/emoji-sd/weights
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from inflate.data.clips import ClipOptions, open_clips

SIDE, RATE, SECONDS = 512, 24, 10


def make_clip(path: Path, seed: int) -> None:
    """One clip: a coloured texture that drifts, another one from the middle on."""
    rng = np.random.default_rng(seed)
    grounds = []
    for tint in rng.integers(0, 200, (2, 3)):
        coarse = rng.integers(0, 80, (SIDE // 16, SIDE // 16, 3))
        grounds.append(np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8) // 2 + tint.astype(np.uint8))
    temporary = path.with_suffix(".part")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "crf": "23", "threads": "1"}
        for number in range(RATE * SECONDS):
            ground = grounds[number >= RATE * SECONDS // 2]
            picture = np.ascontiguousarray(np.roll(ground, 2 * number, axis=1))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.replace(temporary, path)


def make(folder: Path, count: int) -> None:
    """All clips that are not there yet, with a caption each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"clip{number:05d}.mp4"
        if not path.exists():
            make_clip(path, number)
            path.with_suffix(".txt").write_text(f"texture number {number} drifts\n", encoding="utf-8")


def prepare(folder: Path, workers: int, frames: int) -> dict[str, float]:
    """Prepare the folder in this process and read one window of each of the first clips."""
    begun = time.perf_counter()
    clips = open_clips(ClipOptions(str(folder), num_frames=frames, size=(SIDE,), workers=workers), 64)
    opened = time.perf_counter() - begun
    for number in range(min(8, len(clips))):
        clips.read(number)
    unit = 1024 if platform.system() == "Linux" else 1
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return {
        "seconds": round(opened, 3),
        "windows": len(clips),
        "used": clips.report.used,
        "own_MiB": round(own / 2**20, 1),
        "largest_worker_MiB": round(child / 2**20, 1),
        "bound_MiB": round((own + workers * child) / 2**20, 1),
    }


def in_a_process(folder: Path, workers: int, frames: int) -> dict[str, float]:
    """``prepare`` in a fresh process, with the seconds of all of it."""
    command = [sys.executable, __file__, "--prepare", "--folder", str(folder)]
    command += ["--workers", str(workers), "--frames", str(frames)]
    begun = time.perf_counter()
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**json.loads(printed), "process_seconds": round(time.perf_counter() - begun, 3)}


def finetuned(folder: Path, model: str, run: Path, side: int) -> dict[str, float]:
    """One update of the command in a run of its own; what its processes held together, and when the update was."""
    values = (f"data.size=[{side}]", "train.steps=1", "options.sample_clips=0", "options.validation_clips=0")
    command = [sys.executable, "-m", "inflate", "finetune", "--model", model, "--data", str(folder), "-o", str(run)]
    command += [part for value in values for part in ("--set", value)]
    begun, most = time.time(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} left with {process.returncode}")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    updated = next(line["seconds"] for line in lines if "loss" in line)
    return {
        "seconds_to_first_update": round(updated - begun, 2),
        "seconds": round(time.time() - begun, 2),
        "together_MiB": round(most / 2**20, 1),
    }


def memory_of(pid: int) -> int:
    """Bytes that a process and all its children hold, what they share being divided among them (Linux)."""
    total = 0
    for one in (pid, *children_of(pid)):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):  # it has ended
            continue
    return total


def children_of(pid: int) -> list[int]:
    """All processes below one."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return found + [below for child in found for below in children_of(child)]


def main() -> None:
    """Make, prepare twice, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the clips go and stay (default: a temporary folder)")
    parser.add_argument("--model", default="", help="an image model to run `inflate finetune` with, twice")
    parser.add_argument("--side", type=int, default=64, help="data.size of those two runs, in pixels")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        print(json.dumps(prepare(asked.folder, asked.workers, asked.frames)))
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="inflate-clips-"))
    try:
        begun = time.perf_counter()
        make(folder, asked.clips)
        made = time.perf_counter() - begun
        for kept in (folder / ".inflate-cache").glob("scans-*.jsonl"):
            kept.unlink()
        first = in_a_process(folder, asked.workers, asked.frames)
        second = in_a_process(folder, asked.workers, asked.frames)
        runs = {}
        if asked.model:
            shutil.rmtree(folder / ".inflate-cache")
            with tempfile.TemporaryDirectory() as runs_folder:
                for name in ("first", "second"):
                    runs[name] = finetuned(folder, asked.model, Path(runs_folder) / name, asked.side)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    figures = {
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "clips": asked.clips,
        "made_seconds": round(made, 1),
        "peak_rss_MiB": first["bound_MiB"],
        "second_start_seconds": second["process_seconds"],
        "first": first,
        "second": second,
    }
    if runs:
        figures["finetune"] = {"model": asked.model, "side": asked.side, **runs}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
