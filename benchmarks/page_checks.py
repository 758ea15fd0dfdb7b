"""Memory of the page's checks of large uploads: what they keep of those they take, and what they need to refuse others.

    OMP_NUM_THREADS=1 python benchmarks/page_checks.py --output benchmarks/page_checks.json

Videos of 1920 x 1080, a gif and an mp4, of as many frames as are taken and of one more than that: each is checked in a
process of its own. Told is the largest resident set in the process's life less that before the check.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 1080, 1920


def moving(num_frames: int) -> Iterator[np.ndarray]:
    """A bar that moves over a gradient, a frame at a time."""
    ground = np.broadcast_to(np.linspace(0, 255, WIDTH, dtype=np.uint8)[:, None], (HEIGHT, WIDTH, 3))
    for number in range(num_frames):
        frame = ground.copy()
        frame[:, 8 * number % WIDTH :][:, :64] = (200, 30, 30)
        yield frame[None]


def memory(what: str) -> float:
    """MiB of this process, of Linux: resident now (VmRSS), or at the most in its life (VmHWM)."""
    [kib] = re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) / 1024


def child(path: str) -> None:
    """Check one upload; prints what came of it and what it took."""
    from inflate.errors import InputError
    from inflate.page.uploads import check_video

    before = memory("VmRSS")
    start = time.monotonic()
    try:
        kept = check_video(path).frames
        outcome = f"kept as {kept.shape[0]} frames of {kept.shape[2]} x {kept.shape[1]}, {kept.nbytes / 2**20:.0f} MiB"
    except InputError as error:
        outcome = f"refused: {error}"
    more = memory("VmHWM") - before
    print(json.dumps({"outcome": outcome, "mib_more": round(more), "seconds": round(time.monotonic() - start, 1)}))


def measure(counts: list[int]) -> dict[str, object]:
    """All files."""
    from inflate.data.writing import write_video

    rows = []
    with tempfile.TemporaryDirectory(prefix="page-checks-") as folder:
        for suffix in ("gif", "mp4"):
            for count in counts:
                path = write_video(Path(folder) / f"{count}.{suffix}", moving(count), 25)
                words = [sys.executable, __file__, "--child", str(path)]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                rows.append({"file": path.name, "bytes": path.stat().st_size, **json.loads(done.stdout)})
                print(json.dumps(rows[-1]), flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "uploads": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 601])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
    else:
        report = measure(given.frames)
        if given.output:
            given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
