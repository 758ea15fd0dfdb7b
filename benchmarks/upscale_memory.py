"""Peak memory of `inflate upscale` on a short and on a ten times longer video: does it grow with length?

Each length runs in a process of its own, through the program's own `main`, and reports its `ru_maxrss`: the largest
resident set in its life, weights and libraries included. A run that does nothing but start (`inflate --version`, with
torch imported) is the floor, so that a difference can be seen against what the video itself costs.

The long run takes minutes (760 frames of 64 px through the bundled family's two stages), so `make bench` leaves it out.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from inflate.data.writing import write_video

# The child says how large it was; exec would hand it the parent's peak, so the parent imports no torch.
CHILD = """
import json, resource, sys
import torch
from inflate.cli.app import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
ALLOWED = 0.10


def moving_shapes(num_frames: int, side: int) -> np.ndarray:
    """A ring that circles on white, uint8 (F, side, side, 3)."""
    turns = 2 * np.pi * np.arange(num_frames)[:, None, None] / 38
    y, x = np.mgrid[:side, :side] / side - 0.5
    distance = np.hypot(x - 0.2 * np.cos(turns), y - 0.2 * np.sin(turns))
    inside = (distance > 0.1) & (distance < 0.2)
    return np.where(inside[..., None], np.array([220, 60, 40], np.uint8), np.uint8(255))


def peak_mib(arguments: list[str]) -> tuple[float, float]:
    """MiB of resident memory at the most, and seconds, of one run of the program."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"inflate {' '.join(arguments)} failed:\n{done.stderr}")
    report = json.loads(done.stdout.strip().splitlines()[-1])
    if report["code"]:
        raise SystemExit(f"inflate {' '.join(arguments)} failed:\n{done.stderr}")
    # Kilobytes on Linux, bytes on a Mac.
    return report["peak_kb"] / (1024**2 if sys.platform == "darwin" else 1024), time.monotonic() - start


def main() -> None:
    """Measure and print; exits with 1 where memory grows by 10 % or more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:emoji")
    parser.add_argument("--frames", type=int, nargs=2, default=(76, 760), metavar=("SHORT", "LONG"))
    parser.add_argument("--side", type=int, default=64, help="of the video's frames, in pixels")
    parser.add_argument("--until", default=None, help="last stage, such as super_resolution")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each length; the largest counts")
    options = parser.parse_args()
    floor, _ = peak_mib(["--version"])
    peaks, rows = [], []
    with tempfile.TemporaryDirectory(prefix="inflate-memory-") as folder:
        for count in options.frames:
            video, out = Path(folder) / f"{count}.mp4", Path(folder) / f"{count}-large.mp4"
            write_video(video, moving_shapes(count, options.side), 40)
            arguments = ["upscale", str(video), "-o", str(out), "--model", options.model, "--quiet", "--force"]
            arguments += ["--until", options.until] if options.until else []
            runs = [peak_mib(arguments) for _ in range(options.repeats)]
            peak, seconds = max(mib for mib, _ in runs), min(taken for _, taken in runs)
            peaks.append(peak)
            rows.append(f"| {count} | {peak:.0f} | {peak - floor:.0f} | {seconds:.0f} |")
    growth = peaks[1] / peaks[0] - 1
    print(f"inflate upscale, {options.model}, {options.side} px, {date.today()}, {platform.machine()}")
    print("| frames | peak memory (MiB) | over a bare start | seconds |\n| ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    print(
        f"{options.frames[1]} frames take {growth:+.1%} more memory than {options.frames[0]} (bare start: {floor:.0f})"
    )
    if growth >= ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
