"""What preparing a folder of clips costs: peak memory, and the time of a second start from the kept scans.

Clips of 10 s at 512 x 512 and 24 frames a second are made with PyAV (each with pixels of its own, one cut, and sound
left out), then prepared in a process of its own, twice. Memory is the peak resident set of that process, of the largest
of its workers, and the sum of the first and all workers, which bounds what they held at once. The second start is timed
twice: the call alone, and the whole process with Python's start and all imports.

    python benchmarks/clips_memory.py --clips 40
    python benchmarks/clips_memory.py --clips 2000 --folder /data/clips
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


def main() -> None:
    """Make, prepare twice, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the clips go and stay (default: a temporary folder)")
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
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
