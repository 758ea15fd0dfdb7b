"""Killed at any moment and started again with the same command, a run ends with the same weights, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

RECIPE = """
name = "tiny-video-decoder"
step = "video-decoder"
output = "{output}"
[about]
purpose = "a test"
command = "inflate finetune recipe.toml"
hardware = "CPU"
time = "seconds"
figure = "none"
[data]
path = "{videos}"
size = 32
kinds = ["clip"]
[options]
clip = "{family}/clip"
vae = "{family}/vae"
image_model = "{family}/unet"
num_frames = 4
[train]
steps = 14
batch_size = 2
learning_rate = 1e-2
warmup_steps = 2
decay_steps = 4
ema_decay = 0.9
log_every = 1
checkpoint_every = 3
sample_every = 5
"""


def _command(tmp_path: Path, name: str, videos: Path, family: Path) -> tuple[list[str], Path]:
    recipe = tmp_path / f"{name}.toml"
    output = tmp_path / name
    recipe.write_text(RECIPE.format(output=output, videos=videos, family=family))
    arguments = ["finetune", str(recipe), "--quiet", "--device", "cpu"]
    return [sys.executable, "-W", "ignore", "-m", "inflate", *arguments], output


def _updates(output: Path) -> int:
    log = output / "log.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def _environment() -> dict[str, str]:
    # The test kills its children; two threads suffice and keep sums in one order.
    return os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_killed_run_ends_with_the_weights_of_one_that_never_was(tmp_path, videos, tiny_family):
    whole, never_killed = _command(tmp_path, "whole", videos, tiny_family)
    subprocess.run(whole, check=True, env=_environment(), timeout=240)
    command, output = _command(tmp_path, "killed", videos, tiny_family)
    child = subprocess.Popen(command, env=_environment())
    deadline = time.monotonic() + 200
    while _updates(output) < 5:  # past the first checkpoint and before the next
        assert child.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    killed_at = _updates(output)
    assert killed_at < 14 and not (output / "export").exists()
    subprocess.run(command, check=True, env=_environment(), timeout=240)
    # It went on from a checkpoint: some updates were done again, but not all of them.
    assert killed_at + 14 > _updates(output) > 14 or (killed_at % 3 == 0 and _updates(output) == 14)

    made = load_file(output / "export/unet/temporal.safetensors")
    expected = load_file(never_killed / "export/unet/temporal.safetensors")
    assert made.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(made[name], value), name
    # and the training did something: no tensor but constants is still at its start
    assert any(value.abs().sum() > 0 for name, value in made.items() if name.endswith("to_out.weight"))


@pytest.mark.parametrize("damage", ["truncate", "other-model"])
def test_a_damaged_or_foreign_state_is_refused(tmp_path, videos, tiny_family, damage, capsys):
    from inflate.cli.app import main

    command, output = _command(tmp_path, "run", videos, tiny_family)
    arguments = [*command[command.index("finetune") :], "--set", "train.steps=3", "--set", "train.warmup_steps=0"]
    arguments += ["--set", "train.decay_steps=0"]
    assert main(arguments) == 0
    state = next((output / "state").iterdir()) / "state.safetensors"
    if damage == "truncate":
        state.write_bytes(state.read_bytes()[:1000])
        assert main(arguments) == 2
        assert "cannot be read" in capsys.readouterr().err
    else:
        assert main([*arguments, "--set", "options.num_frames=3"]) == 2
        assert "differs from this recipe's" in capsys.readouterr().err
