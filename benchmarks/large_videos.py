"""Peak memory and time of the commands that take videos, on large and long ones, against the time told at the start.

Each case runs in a process of its own, through the program's own `main`, and reports its `ru_maxrss`: the largest
resident set in its life, weights and libraries included. The videos are drawn here: a ring that circles on a texture.

    python benchmarks/large_videos.py upscale 1280x720x132            # the whole of it: minutes
    python benchmarks/large_videos.py upscale 1920x1080x4 --factor 2
    python benchmarks/large_videos.py interpolate 1920x1080x60 1920x1080x240
    python benchmarks/large_videos.py extend 1920x1080x1800 --until interpolation

Nothing here is one of `make bench`: a run takes minutes to hours, and `--model FOLDER` takes a small cascade as well.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from inflate.data.writing import write_video

# The child says how large it was; exec would hand it the parent's peak, so the parent imports no torch.
CHILD = """
import json, resource, sys, time
import torch
torch.set_num_threads(int(sys.argv[1]))
from inflate.cli.app import main
code = main(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"code": code, "peak_kb": usage.ru_maxrss, "cpu_seconds": usage.ru_utime + usage.ru_stime}))
"""
ALLOWED_MIB = 3 * 10**9 / 2**20
TOLD = re.compile(r"about ([\d.]+) (s|min|hours) on this machine")
SECONDS = {"s": 1, "min": 60, "hours": 3600}


def moving_ring(num_frames: int, width: int, height: int) -> Iterator[np.ndarray]:
    """A ring that circles on a texture once in 38 frames: single frames, uint8 (1, height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    texture = (128 + 60 * np.sin(x / 17) * np.cos(y / 23) + 40 * np.sin((x + y) / 3)).astype(np.uint8)
    for number in range(num_frames):
        turn = 2 * np.pi * number / 38
        distance = np.hypot(x / height - width / height / 2 - 0.2 * np.cos(turn), y / height - 0.5 - 0.2 * np.sin(turn))
        frame = np.repeat(texture[..., None], 3, axis=2)
        frame[(distance > 0.1) & (distance < 0.2)] = (220, 60, 40)
        yield frame[None]


def run(command: list[str], threads: int) -> dict[str, float]:
    """Peak in MiB, seconds from outside and of the processor, and the seconds that were told (NaN if none were)."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD, str(threads), *command], capture_output=True, text=True)
    seconds = time.monotonic() - start
    report = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {"code": done.returncode or 1}
    if report["code"]:
        raise SystemExit(f"inflate {' '.join(command)} failed:\n{done.stderr}")
    told = TOLD.search(" ".join(done.stderr.split()))
    return {
        # Kilobytes on Linux, bytes on a Mac.
        "peak": report["peak_kb"] / (1024**2 if sys.platform == "darwin" else 1024),
        "seconds": seconds,
        "cpu": report["cpu_seconds"],
        "told": float(told[1]) * SECONDS[told[2]] if told else float("nan"),
    }


def main() -> None:
    """Measure and print; exits with 1 where a run took more than 3 GB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("upscale", "interpolate", "extend", "vary"))
    parser.add_argument("videos", nargs="+", metavar="WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--model", default="bundled:emoji")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options, more = parser.parse_known_args()
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory(prefix="inflate-large-") as folder:
        for text in options.videos:
            width, height, count = (int(part) for part in text.split("x"))
            video, out = Path(folder) / f"{text}.mp4", Path(folder) / f"{text}-out.mp4"
            write_video(video, moving_ring(count, width, height), options.fps)
            made = run([options.command, str(video), "-o", str(out), "--model", options.model, *more], options.threads)
            worst = max(worst, made["peak"])
            rows.append(
                f"| {text} | {made['peak']:.0f} | {made['seconds']:.0f} | {made['cpu']:.0f} | {made['told']:.0f} |"
            )
    print(
        f"inflate {options.command} {' '.join(more)}, {options.model}, {options.threads} threads, {date.today()}, ",
        end="",
    )
    print(platform.machine())
    print("| video | peak memory (MiB) | seconds | of processor | told |\n| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    if worst > ALLOWED_MIB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
