"""`inflate finetune --model`, killed while it encodes or trains, ends with the weights of one never killed."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.bases.families import build
from tests.killed import KILL_AFTER

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


# Kills itself a little after it has done so many updates; for 0, after it has begun to write encodings.
_DYING = (
    KILL_AFTER
    + """
from inflate.cli.app import main
from inflate.data.clips.store import EncodingStore
from inflate.train import loop
moment, calls = int(sys.argv[1]), int(sys.argv[2])
place, name = (loop._Run, "_keep") if moment else (EncodingStore, "add")
before = getattr(place, name)
def then(self, first, *rest):
    if not moment or first == moment:
        kill_after(calls)
    before(self, first, *rest)
setattr(place, name, then)
sys.exit(main(sys.argv[3:]))
"""
)


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
    # One kill before the first update, while clips are encoded; the others after so many updates.
    moments = [0, *sorted(draw.sample(range(1, STEPS - 1), KILLS - 1))]
    for moment in moments:
        dying = [sys.executable, "-W", "ignore", "-c", _DYING, str(moment), str(draw.randrange(1, 3000))]
        child = subprocess.run([*dying, *command[command.index("finetune") :]], env=environment, timeout=280)
        assert child.returncode == -signal.SIGKILL, moment
        assert moment - 1 <= _updates(killed) < STEPS and (tmp_path / "other").exists()
    assert not (killed / "export").exists()
    subprocess.run(command, check=True, env=environment, timeout=280)
    [one] = (whole / "export").rglob("temporal.safetensors")
    [other] = (killed / "export").rglob("temporal.safetensors")
    expected, made = load_file(one), load_file(other)
    assert expected.keys() == made.keys()
    for name, value in expected.items():
        assert torch.equal(made[name], value), name
    assert _updates(killed) == _updates(whole) == STEPS
