"""What emoji-sd learns from few clips, by the command that a person types: 50 of them, one, and 50 at learning rate 0.

    python benchmarks/few_clips.py data/fluent-emoji runs/few-clips

Clips and captions are taken from the prepared data as files (``clip.webp``, ``clip.txt``); each run is
`inflate finetune recipes/emoji-sd/video.toml --data FOLDER`, in a process of its own. Rows go into ``few_clips.json``
beside this file: held-out loss before and after, the image model's, motion, the findings of the diagnosis, and minutes
with encoding and samples.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_suffix(".json")
RECIPE = "recipes/emoji-sd/video.toml"
# Name -> clips, and what the command sets.
RUNS: dict[str, tuple[int, dict[str, str]]] = {
    "fifty": (50, {"train.steps": "400", "train.decay_steps": "150"}),
    "one": (1, {"train.steps": "200", "train.decay_steps": "80", "options.condition_dropout": "0.0"}),
    "fifty, learning rate 0": (50, {"train.steps": "60", "train.decay_steps": "0", "train.learning_rate": "0.0"}),
}


def take(data: Path, folder: Path, count: int) -> None:
    """``count`` clips of the training shards, the same ones each time, with their captions."""
    found: list[tuple[Path, str]] = []
    for shard in sorted((data / "shards").glob("train-*.tar")):
        with tarfile.open(shard) as archive:
            found += [(shard, name) for name in archive.getnames() if name.endswith(".webp")]
    folder.mkdir(parents=True, exist_ok=True)
    for shard, name in random.Random(0).sample(sorted(found), count):
        with tarfile.open(shard) as archive:
            video = archive.extractfile(name)
            said = archive.extractfile(str(Path(name).with_suffix(".json")))
            assert video is not None and said is not None
            (folder / Path(name).name).write_bytes(video.read())
            caption = json.loads(said.read())["caption"]
        (folder / Path(name).name).with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def row(clips: Path, run: Path, settings: dict[str, str], model: str) -> dict[str, Any]:
    """One run, and what it came to."""
    values = {"options.model": f'"{model}"', "train.warmup_steps": "20", "train.validate_every": "50", **settings}
    command = [sys.executable, "-m", "inflate", "finetune", RECIPE, "--data", str(clips), "-o", str(run), "--quiet"]
    command += [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    begun = time.time()
    subprocess.run(command, check=True)
    minutes = (time.time() - begun) / 60
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    held_out = [line["validation_loss"] for line in lines if "validation_loss" in line]
    diagnosis = json.loads((run / "diagnosis.json").read_text())
    return {
        "clips": len(list(clips.glob("*.webp"))),
        "updates": lines[-1]["update"],
        "minutes": round(minutes, 1),
        "held_out_before": held_out[0],
        "held_out_after": held_out[-1],
        "image_model": next(line["image_model_loss"] for line in lines if "image_model_loss" in line),
        "motion_made": diagnosis["facts"].get("sample_motion"),
        "motion_real": diagnosis["facts"].get("data_motion"),
        "findings": [finding["sentence"] for finding in diagnosis["findings"]],
    }


def main() -> None:
    """All runs, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="recipes/emoji-sd/weights")
    parser.add_argument("--only", choices=sorted(RUNS), action="append")
    asked = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in asked.only or RUNS:
        count, settings = RUNS[name]
        clips = asked.output / f"clips-{count}"
        take(asked.data, clips, count)
        kept[name] = row(clips, asked.output / name.replace(", ", "-").replace(" ", "-"), settings, asked.model)
        kept["machine"] = f"{platform.machine()}, {os.cpu_count()} CPU cores"
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        print(json.dumps({name: kept[name]}, indent=1))


if __name__ == "__main__":
    main()
