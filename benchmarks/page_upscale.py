"""Memory of the page's largest upscaling, to its end: 120 frames of 256 px, enlarged and written in three formats.

    OMP_NUM_THREADS=1 python benchmarks/page_upscale.py --output benchmarks/page_upscale.json

Two lengths, each in a process of its own, through the page's own job, with few steps: memory follows from sizes and not
from steps. What is told is the resident set, looked at ten times a second, less what the process has before the job
begins (libraries); the largest of it while frames are made and while files are written.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

MIB = 2**20
LOOK_SECONDS = 0.1


def moving_shapes(num_frames: int, side: int) -> np.ndarray:
    """A ring that circles on coloured noise, uint8 (F, side, side, 3): no frame is like another."""
    turns = 2 * np.pi * np.arange(num_frames)[:, None, None] / 38
    y, x = np.mgrid[:side, :side] / side - 0.5
    distance = np.hypot(x - 0.2 * np.cos(turns), y - 0.2 * np.sin(turns))
    ground = np.random.default_rng(0).integers(160, 256, (side, side, 3), dtype=np.uint8)
    inside = (distance > 0.1) & (distance < 0.2)
    return np.where(inside[..., None], np.array([220, 60, 40], np.uint8), ground)


def resident() -> float:
    """MiB of this process, of Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def child(num_frames: int, side: int, steps: int) -> None:
    """Make one video as the page does; prints what it took."""
    from inflate.data.writing import write_video
    from inflate.page.estimate import Paces
    from inflate.page.jobs import Job, Models
    from inflate.page.making import work_for
    from inflate.page.wishes import Settings, upscale

    with tempfile.TemporaryDirectory(prefix="inflate-upscale-") as name:
        folder = Path(name)
        video = write_video(folder / "a.mp4", moving_shapes(num_frames, side), 24)
        cascade = Models("cpu").get("bundled:emoji")
        for stage in cascade.stages:
            stage.defaults = replace(stage.defaults, num_inference_steps=steps)
        wish = upscale(
            cascade, "bundled:emoji", str(video), "super-resolution", None, Settings(24, num_frames, 1, 1, 0)
        )
        job = Job("upscale", wish.title, work_for(wish, cascade, folder), Paces())
        before, start = resident(), time.monotonic()
        most: dict[str, float] = {}
        thread = threading.Thread(target=job.run)
        thread.start()
        while thread.is_alive():
            line = job.status().line.partition(":")[0]
            most[line] = max(most.get(line, 0.0), resident() - before)
            time.sleep(LOOK_SECONDS)
        if job.result is None:
            raise SystemExit(f"it failed: {job.wrong}")
        files = {path.suffix[1:]: path.stat().st_size for path in map(Path, job.result.written.all())}
    found = {"frames": job.result.num_frames, "seconds": round(time.monotonic() - start), "mib_before": round(before)}
    print(json.dumps(found | {"mib_more": {line: round(one) for line, one in most.items()}, "bytes": files}))


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Both lengths."""
    rows = []
    for count in options.frames:
        words = [__file__, "--child", str(count), "--side", str(options.side), "--steps", str(options.steps)]
        done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "command": f"page upscale, {options.side} px, {options.steps} step(s) a stage",
        "runs": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[30, 120])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="of each stage")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.side, given.steps)
    else:
        report = measure(given)
        if given.output:
            given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
