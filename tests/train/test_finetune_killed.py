"""`inflate finetune --model`, killed while it encodes or trains, ends with the weights of one never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.bases.families import build

from .test_finetune_models import settings, write_clip

KILLS = int(os.environ.get("INFLATE_TEST_KILLS", "2"))  # ten by hand; each start costs some seconds
STEPS = 8 * KILLS


def _command(model: Path, clips: Path, run: Path, cache: Path) -> list[str]:
    more = ("train.checkpoint_every=3", "train.validate_every=5", "train.sample_every=0", f'data.cache="{cache}"')
    named = ["--model", str(model), "--data", str(clips), "-o", str(run), "--device", "cpu", "--quiet"]
    return [sys.executable, "-W", "ignore", "-m", "inflate", "finetune", *named, *settings(*more, steps=STEPS)]


def _updates(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count('"loss"') if log.is_file() else 0


def test_killed_at_random_moments_the_weights_are_the_same(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(4):
        write_clip(clips / f"clip{number}.mp4", number)
        (clips / f"clip{number}.txt").write_text("red" if number % 2 else "see")
    model = build("stable-diffusion", tmp_path / "model")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(_command(model, clips, whole, tmp_path / "one"), check=True, env=environment, timeout=280)
    command = _command(model, clips, killed, tmp_path / "other")
    draw = random.Random(7)
    # One kill before the first update, while files are scanned and encoded; the others after so many updates.
    moments = [0, *sorted(draw.sample(range(1, STEPS - 1), KILLS - 1))]
    for moment in moments:
        child = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            begun = (tmp_path / "other").exists() if moment == 0 else _updates(killed) >= moment
            if begun:
                time.sleep(draw.random() * 0.3)
                break
            time.sleep(0.01)
        assert child.poll() is None, "the run ended before it could be killed"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (killed / "export").exists()
    subprocess.run(command, check=True, env=environment, timeout=280)
    [one] = (whole / "export").rglob("temporal.safetensors")
    [other] = (killed / "export").rglob("temporal.safetensors")
    expected, made = load_file(one), load_file(other)
    assert expected.keys() == made.keys()
    for name, value in expected.items():
        assert torch.equal(made[name], value), name
    assert _updates(killed) == _updates(whole) == STEPS
