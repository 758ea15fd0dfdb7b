"""Killed at any moment and started again with the same command, a run ends with the same weights, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inflate.train.state import updates_done
from tests.killed import KILL_AFTER, Paused

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
    # Sums are in the same order in every child, also in those of `Paused`.
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


# Stops after the fifth update: past the first checkpoint and before the next.
_PAUSED = """
from inflate.cli.app import main
from inflate.train import loop
keep = loop._Run._keep
def keeping(self, done, *rest):
    keep(self, done, *rest)
    if done == 5:
        pause()
loop._Run._keep = keeping
main(sys.argv[1:])
"""


def test_a_killed_run_ends_with_the_weights_of_one_that_never_was(tmp_path, videos, tiny_family):
    whole, never_killed = _command(tmp_path, "whole", videos, tiny_family)
    subprocess.run(whole, check=True, env=_environment(), timeout=240)
    command, output = _command(tmp_path, "killed", videos, tiny_family)
    with Paused(_PAUSED, *command[command.index("finetune") :]) as child:
        child.process.kill()
        assert child.process.wait() == -signal.SIGKILL
    assert _updates(output) == 5 and updates_done(output / "state") == 3 and not (output / "export").exists()
    subprocess.run(command, check=True, env=_environment(), timeout=240)
    # It went on from a checkpoint, did some updates again, and each stands in the log once.
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, 15))

    made = load_file(output / "export/unet/temporal.safetensors")
    expected = load_file(never_killed / "export/unet/temporal.safetensors")
    assert made.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(made[name], value), name
    # and the training did something: no tensor but constants is still at its start
    assert any(value.abs().sum() > 0 for name, value in made.items() if name.endswith("to_out.weight"))


# One process imports torch and forks a child per start, so that a start takes no ten seconds. The children are whole
# processes of their own, and SIGKILL leaves them no time for anything.
_STARTER = (
    KILL_AFTER
    + """
from pathlib import Path
import torch
torch.set_num_threads(1)
from inflate.train import loop
from tests.train.toy import toy_recipe
output, save = Path(sys.argv[1]), loop.save_state
settings = dict(steps=70, checkpoint_every=1, validate_every=7, ema_decay=0.9, gradient_accumulation_steps=2)
recipe = toy_recipe(output, {"noise": 0.1}, "talking-toy", **settings)
def run(calls, checkpoints):
    # Killed so many calls of functions after so many checkpoints; never for 0 calls.
    def saving(*arguments):
        nonlocal checkpoints
        save(*arguments)
        checkpoints -= 1
        if calls and checkpoints == 0:
            kill_after(calls)
    loop.save_state = saving
    if calls and checkpoints == 0:
        kill_after(calls)
    loop.train(recipe, device="cpu", quiet=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(*map(int, line.split()))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
)


class _Starter:
    def __init__(self, output: Path) -> None:
        self.output = output
        command = [sys.executable, "-W", "ignore", "-c", _STARTER, str(output)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )

    def run(self, calls: int = 0, checkpoints: int = 0) -> int:
        """How a start ended: 0, or by which signal."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{calls} {checkpoints}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def test_killed_at_ten_random_moments_it_ends_with_the_same_weights_bit_for_bit(tmp_path):
    whole, killed = _Starter(tmp_path / "whole"), _Starter(tmp_path / "killed")
    try:
        assert whole.run() == 0
        generator, done = random.Random(17), []
        for number in range(10):
            # The first dies in its preparation, the others after one checkpoint or three, wherever they are then.
            assert (
                killed.run(generator.randrange(1, 4000), generator.choice((1, 3)) if number else 0) == -signal.SIGKILL
            )
            done.append(updates_done(killed.output / "state"))
        assert done == sorted(done) and done[0] < done[-1] < 70 and len(set(done)) > 5, done
        assert killed.run() == 0
    finally:
        for starter in (whole, killed):
            assert starter.process.stdin
            starter.process.stdin.close()
            starter.process.wait(timeout=60)
            assert starter.process.stdout
            starter.process.stdout.close()
    made, expected = (load_file(starter.output / "export/w.safetensors") for starter in (killed, whole))
    assert made.keys() == expected.keys() and all(torch.equal(made[name], value) for name, value in expected.items())
    logs = []
    for starter in (whole, killed):
        lines = [json.loads(line) for line in (starter.output / "log.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in line.items() if k not in ("seconds", "points_per_second")} for line in lines])
    assert logs[0] == logs[1]


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
        assert "differs from this recipe's: options.num_frames was 4 and is 3" in capsys.readouterr().err
