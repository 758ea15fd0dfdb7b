"""How long it takes to open and to convert: `inflate convert`, `inspect`, `--help`, beside `cp` of the same files.

    OMP_NUM_THREADS=1 python benchmarks/opening.py --folder DIR --output benchmarks/opening.json

A UNet of Stable Diffusion 1.5's true size (3.4 GB; `--size sdxl`: 10 GB) with random weights is written below DIR. Then
rounds of the same commands, one after the other, each in a process of its own that starts with nothing; the disk is
waited for between them, and medians are told. The first round of all is told by itself: it finds no plan of the
architecture (`inflate.checkpoint.plans`), and so it imports torch and diffusers.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A process of its own, so that this one stays small: what it begins is told its peak too, until it has none higher.
_MAKE = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
folder = Path(sys.argv[2])
with torch.device("meta"):
    model = UNet2DConditionModel.from_config(json.loads(Path(sys.argv[1]).read_text()))
folder.mkdir(parents=True)
model.save_config(folder)
numbers = torch.from_numpy(np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)) / 50
made = {}
for name, value in model.state_dict().items():
    made[name] = numbers.repeat(-(-value.numel() // len(numbers)))[: value.numel()].reshape(value.shape)
save_file(made, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
"""


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and MiB at the most of a command."""
    start = time.monotonic()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, **quiet)  # pyright: ignore[reportCallIssue, reportArgumentType]  # streams
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {said.decode()}")
    return time.monotonic() - start, used.ru_maxrss / 1024


def commands(image: Path, folder: Path) -> dict[str, list[str]]:
    """What is timed, by name; what is made goes into ``folder``."""
    inflate = [sys.executable, "-m", "inflate"]
    made = str(folder / "made")
    return {
        "cp": ["cp", "-r", str(image), made],
        "convert": [*inflate, "convert", str(image), made, "--quiet"],
        "convert --scheme lean": [*inflate, "convert", str(image), made, "--scheme", "lean", "--quiet"],
        "convert --scheme lean --hard-link": [
            *inflate, "convert", str(image), made, "--scheme", "lean", "--hard-link", "--quiet",
        ],
        "inspect": [*inflate, "inspect", str(image), "--quiet"],
        "inflate --help": [*inflate, "--help"],
        "inflate generate --help": [*inflate, "generate", "--help"],
        "python -c 'import inflate'": [sys.executable, "-c", "import inflate"],
        "python -c 'import typer, rich.console, typer.rich_utils'": [
            sys.executable, "-c", "import typer, rich.console, typer.rich_utils",
        ],
        "python -c pass": [sys.executable, "-c", "pass"],
    }  # fmt: skip


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """All rounds."""
    image, cache = folder / "image", folder / "cache"
    if not image.exists():
        config = ROOT / "inflate" / "checkpoint" / "configs" / f"{options.size}_unet.json"
        subprocess.run([sys.executable, "-c", _MAKE, str(config), str(image)], check=True)
    shutil.rmtree(cache, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("INFLATE_CACHE", None)
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.rounds + 1):
        for name, command in commands(image, folder).items():
            shutil.rmtree(folder / "made", ignore_errors=True)
            os.sync()
            rows.setdefault(name, []).append(run(command, environment))
            print(name, *(round(one, 2) for one in rows[name][-1]), flush=True)
    shutil.rmtree(folder / "made", ignore_errors=True)
    found: dict[str, object] = {}
    for name, all_rounds in rows.items():
        seconds, peaks = zip(*all_rounds[1:], strict=True)
        found[name] = {
            "seconds": round(statistics.median(seconds), 3),
            "least": round(min(seconds), 3),
            "mib": round(max(peaks)),
            "first": [round(all_rounds[0][0], 2), round(all_rounds[0][1])],
        }
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}",
        "versions": {name: version(name) for name in ("torch", "diffusers", "typer", "numpy")},
        "size": options.size,
        "bytes": sum(path.stat().st_size for path in image.iterdir()),
        "rounds": options.rounds,
        "medians": found,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--rounds", type=int, default=7, help="that count; one more comes before them")
    parser.add_argument("--folder", type=Path, help="where the model is made, and stays for the next run")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inflate-opening-") as scratch:
        report = measure(given, given.folder or Path(scratch))
    print(json.dumps(report, indent=2))
    if given.output:
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
