"""Time of the whole chain, from prompt to 512 px, for a family of students beside its teachers at 64 steps.

Each run is a process of its own through the program's own `main`, and the two take turns. Four frames of D^t become
16 of 512 px: all five stages, and short enough to be repeated at 64 steps. The times are seconds of processor time less
those of a run that only starts, since other programs may be at work on the same cores.

    inflate assemble recipes/families/emoji-fast.toml out/emoji-fast
    python benchmarks/distilled_chain.py out/emoji-fast --json benchmarks/distilled_chain.json
"""

import argparse
import json
import statistics
import tempfile
from datetime import date
from pathlib import Path

from distilled import about
from long_video import run

TEACHER_STEPS = 64


def seconds(model: str, prompt: str, frames: int, steps: int | None, folder: str) -> float:
    """Processor time of one video through the whole chain."""
    arguments = ["generate", prompt, "-o", str(Path(folder) / "out.mp4"), "--model", model, "--frames", str(frames)]
    arguments += ["--force", "--no-sheet", "--quiet"] + ([] if steps is None else ["--steps", str(steps)])
    return run(arguments)["cpu_seconds"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", help="the students', with their numbers of steps as defaults")
    parser.add_argument("--teacher", default="bundled:emoji")
    parser.add_argument("--prompt", default="party popper")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    options = parser.parse_args()
    floor, teacher, student = run(["--version"])["cpu_seconds"], [], []
    with tempfile.TemporaryDirectory(prefix="inflate-chain-") as folder:
        for number in range(options.rounds):
            student.append(seconds(options.family, options.prompt, options.frames, None, folder) - floor)
            teacher.append(seconds(options.teacher, options.prompt, options.frames, TEACHER_STEPS, folder) - floor)
            print(f"round {number + 1}: students {student[-1]:.1f} s, teachers {teacher[-1]:.1f} s", flush=True)
    ratios = [theirs / ours for theirs, ours in zip(teacher, student, strict=True)]
    report = about() | {"frames": options.frames, "students": student, "teachers": teacher, "ratios": ratios}
    print(f"{date.today()}: {statistics.median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f})")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
