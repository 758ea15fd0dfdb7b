"""Peak memory and time of `inflate generate` for a short and a long video: does memory grow, does time per frame?

Each length runs in a process of its own, through the program's own `main`, and reports its `ru_maxrss`: the largest
resident set in its life, weights and libraries included. A run that does nothing but start is the floor. Memory does
not depend on the number of sampling steps, so one for the decoder is enough, without guidance; `--steps` and
`--guidance-scale` ask for more. Both lengths must be above what the decoder sees at once (16 frames in bundled:emoji):
below that, videos are made whole.

    python benchmarks/long_video.py --json benchmarks/long_video.json
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

# The child says how large it was; exec would hand it the parent's peak, so the parent imports no torch.
CHILD = """
import json, resource, sys
import torch
from inflate.cli.app import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"code": code, "peak": used.ru_maxrss, "cpu_seconds": used.ru_utime + used.ru_stime}))
"""
ALLOWED = 0.10


def run(arguments: list[str]) -> dict[str, float]:
    """MiB of resident memory at the most, seconds, and seconds of processor time of one run of the program."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, *arguments], capture_output=True, text=True)
    report = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {"code": 1}
    if done.returncode or report["code"]:
        raise SystemExit(f"inflate {' '.join(arguments)} failed:\n{done.stderr}")
    # Kilobytes on Linux, bytes on a Mac.
    mib = report["peak"] / (1024**2 if sys.platform == "darwin" else 1024)
    return {"mib": round(mib, 1), "seconds": round(time.monotonic() - start, 1), "cpu_seconds": report["cpu_seconds"]}


def main() -> None:
    """Measure and print; exits with 1 where memory grows by 10 % or more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:emoji")
    parser.add_argument("--frames", type=int, nargs=2, default=(32, 300), metavar=("SHORT", "LONG"))
    parser.add_argument("--frame-skip", type=int, default=5)
    parser.add_argument("--until", default=None, help="last stage, such as super_resolution")
    parser.add_argument("--steps", default="prior=2,decoder=1")
    parser.add_argument("--guidance-scale", default="1")
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    options = parser.parse_args()
    floor = run(["--version"])
    runs = {}
    with tempfile.TemporaryDirectory(prefix="inflate-long-") as folder:
        for count in options.frames:
            out = str(Path(folder) / f"{count}.mp4")
            arguments = ["generate", "party popper", "-o", out, "--model", options.model, "--frames", str(count)]
            arguments += ["--frame-skip", str(options.frame_skip), "--steps", options.steps, "--no-sheet", "--quiet"]
            arguments += ["--guidance-scale", options.guidance_scale]
            arguments += ["--until", options.until] if options.until else []
            runs[count] = run(arguments)
    short, long = (runs[count] for count in options.frames)
    growth = long["mib"] / short["mib"] - 1
    per_frame = [(runs[count]["cpu_seconds"] - floor["cpu_seconds"]) / count for count in options.frames]
    report = {"date": str(date.today()), "machine": platform.machine(), "model": options.model}
    report |= {"frame_skip": options.frame_skip, "until": options.until, "steps": options.steps, "start": floor}
    report |= {"runs": runs, "growth": round(growth, 4), "cpu_seconds_per_frame": per_frame}
    print(f"inflate generate, {options.model}, frame skip {options.frame_skip}, {report['date']}, {report['machine']}")
    print("| frames | peak memory (MiB) | over a bare start | processor seconds | per frame |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for (count, one), each in zip(runs.items(), per_frame, strict=True):
        print(
            f"| {count} | {one['mib']:.0f} | {one['mib'] - floor['mib']:.0f} | {one['cpu_seconds']:.0f} | {each:.2f} |"
        )
    print(f"{options.frames[1]} frames take {growth:+.1%} more memory than {options.frames[0]}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if growth >= ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
