"""What the loop does beside descending: accumulation, precision, optimizers, the log, stopping, what it says."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

from inflate.cli.app import main
from inflate.errors import InputError, StoppedError
from inflate.train import log as log_module
from inflate.train import loop as loop_module
from inflate.train.guards import only_process
from inflate.train.loop import train
from inflate.train.recipe import TrainOptions
from inflate.train.state import checkpoints
from tests.killed import Paused

from . import toy
from .toy import ToyStep, toy_recipe


def _weights(folder):
    return load_file(folder / "export/w.safetensors")


def _lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _go(recipe):
    return train(recipe, device="cpu", quiet=True)


def test_four_times_one_equals_one_times_four(tmp_path):
    common = {"steps": 6, "max_grad_norm": 0.5, "checkpoint_every": 6}
    _go(toy_recipe(tmp_path / "4x1", batch_size=1, gradient_accumulation_steps=4, **common))
    _go(toy_recipe(tmp_path / "1x4", batch_size=4, **common))
    _go(toy_recipe(tmp_path / "1x1", batch_size=1, **common))
    made, expected, other = (_weights(tmp_path / name) for name in ("4x1", "1x4", "1x1"))
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, atol=1e-6, rtol=0)
        assert not torch.allclose(other[name], value, atol=1e-4)
    for one, four in zip(_lines(tmp_path / "4x1"), _lines(tmp_path / "1x4"), strict=True):
        for key in ("loss", "half", "gradient_norm"):
            assert one[key] == pytest.approx(four[key], rel=1e-5)
        assert one["gradient_norm"] > 0.5  # so it was clipped


def test_clipping_and_adamw_are_those_of_a_loop_by_hand(tmp_path):
    recipe = toy_recipe(tmp_path / "run", steps=5, max_grad_norm=0.7, ema_decay=0.0, weight_decay=0.1, beta2=0.9)
    _go(recipe)
    step = ToyStep(recipe, torch.device("cpu"))
    optimizer = torch.optim.AdamW(step.trained.parameters(), lr=1e-2, betas=(0.9, 0.9), weight_decay=0.1)
    for update in range(5):
        step(step.draw(update, 0, 4)).total.backward()
        nn.utils.clip_grad_norm_(step.trained.parameters(), 0.7)
        optimizer.step()
        optimizer.zero_grad()
    for name, value in _weights(tmp_path / "run").items():
        torch.testing.assert_close(value, step.trained.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_random_numbers_follow_from_the_seed_the_update_and_its_part(tmp_path, monkeypatch):
    def states(name, **changes):
        seen, call = [], ToyStep.__call__

        def noting(step, batch):
            seen.append(torch.initial_seed())
            return call(step, batch)

        with monkeypatch.context() as patch:
            patch.setattr(ToyStep, "__call__", noting)
            _go(toy_recipe(tmp_path / name, steps=3, gradient_accumulation_steps=2, **changes))
        return seen

    one, again, other = states("one"), states("again"), states("other", seed=1)
    assert one == again and len({*one, *other}) == 12


def test_the_average_is_exported_validated_and_sampled(tmp_path, monkeypatch):
    seen = []
    for name in ("validate", "samples", "export"):
        member = getattr(toy.TalkingStep, name)

        def note(self, *arguments, name=name, member=member):
            seen.append((name, self.trained[0].weight.detach().clone()))
            return member(self, *arguments)

        monkeypatch.setattr(toy.TalkingStep, name, note)
    _go(toy_recipe(tmp_path / "run", step="talking-toy", steps=6, validate_every=6, sample_every=6, ema_decay=0.9))
    state = load_file(checkpoints(tmp_path / "run/state")[-1] / "state.safetensors")
    average, trained = state["ema.0.weight"], state["parameter.0.weight"]
    assert not torch.equal(average, trained)
    assert [name for name, _ in seen] == ["validate", "validate", "samples", "export", "samples"]
    assert all(torch.equal(value, average) for _, value in seen[1:])


def test_bf16_autocasts_and_fp16_on_a_cpu_is_refused_in_one_sentence(tmp_path):
    _go(toy_recipe(tmp_path / "no"))
    _go(toy_recipe(tmp_path / "bf16", mixed_precision="bf16"))
    plain, half = _weights(tmp_path / "no"), _weights(tmp_path / "bf16")
    assert all(value.dtype == torch.float32 for value in half.values()) and not _same(plain, half)
    for name, value in plain.items():
        torch.testing.assert_close(half[name], value, atol=5e-2, rtol=0)
    with pytest.raises(InputError, match=r"'fp16' needs a GPU, and this run is on the cpu; use 'bf16' or 'no'"):
        _go(toy_recipe(tmp_path / "fp16", mixed_precision="fp16"))


def _scaled_on_the_cpu(monkeypatch):
    """What accelerate sets up for fp16 on a GPU, on the CPU: autocast to float16 and a scaler of the loss."""

    def accelerator(recipe, device):
        AcceleratorState._reset_state()  # as the loop does: another test's run may have left its own
        made = Accelerator(cpu=True, mixed_precision="fp16")
        made.native_amp = True
        made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        scalers.append(made.scaler)
        return made

    scalers = []
    monkeypatch.setattr(loop_module, "_accelerator", accelerator)
    return scalers


def test_the_scale_of_fp16_survives_a_stop_and_an_overflow_changes_no_weight(tmp_path, monkeypatch):
    scalers = _scaled_on_the_cpu(monkeypatch)
    _go(toy_recipe(tmp_path / "whole", mixed_precision="fp16", checkpoint_every=1, keep_checkpoints=20))
    assert scalers[-1].get_scale() == 2.0**14  # it has grown four times
    stop = {"signal": "SIGTERM", "at": 6}
    with pytest.raises(StoppedError):
        _go(toy_recipe(tmp_path / "run", stop, mixed_precision="fp16", checkpoint_every=1, keep_checkpoints=20))
    _forget(tmp_path / "run", stop)
    _go(toy_recipe(tmp_path / "run", mixed_precision="fp16", checkpoint_every=1, keep_checkpoints=20))
    assert scalers[-1].get_scale() == 2.0**14
    assert _same(_weights(tmp_path / "run"), _weights(tmp_path / "whole"))

    _go(toy_recipe(tmp_path / "over", {"huge": 4}, mixed_precision="fp16", checkpoint_every=1, keep_checkpoints=20))
    before, after, later = (
        load_file(tmp_path / f"over/state/step-0000000{number}/state.safetensors") for number in (4, 5, 6)
    )
    kinds = [name for name in before if name.startswith(("parameter.", "ema."))]
    assert kinds and all(torch.equal(before[name], after[name]) for name in kinds)
    assert not any(torch.equal(after[name], later[name]) for name in kinds)
    assert _lines(tmp_path / "over")[4]["gradient_norm"] is None


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
def test_8_bit_adamw_learns_and_resumes_bit_for_bit(tmp_path):
    options, changes = {"width": 600}, {"optimizer": "adamw-8bit", "steps": 8, "checkpoint_every": 4}
    _go(toy_recipe(tmp_path / "whole", options, **changes))
    stop = {"signal": "SIGTERM", "at": 3}
    with pytest.raises(StoppedError):
        _go(toy_recipe(tmp_path / "stopped", options | stop, **changes))
    state = load_file(checkpoints(tmp_path / "stopped/state")[-1] / "state.safetensors")
    assert state["optimizer.state1.0.weight"].dtype == torch.uint8
    _forget(tmp_path / "stopped", stop)
    _go(toy_recipe(tmp_path / "stopped", options, **changes))
    assert _same(_weights(tmp_path / "stopped"), _weights(tmp_path / "whole"))
    _go(toy_recipe(tmp_path / "32bit", options, **{**changes, "optimizer": "adamw"}))
    exact, rounded = _weights(tmp_path / "32bit"), _weights(tmp_path / "whole")
    assert not _same(exact, rounded)
    torch.testing.assert_close(rounded["0.weight"], exact["0.weight"], atol=2e-2, rtol=0)


def _forget(folder, keys):
    """Take the toy's own options for stopping out of the stored recipe; they are no part of the training."""
    stored = json.loads((folder / "recipe.json").read_text())
    stored["options"] = {key: value for key, value in stored["options"].items() if key not in keys}
    (folder / "recipe.json").write_text(json.dumps(stored))


def test_8_bit_adamw_without_its_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("inflate.train.optimizers.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs bitsandbytes: pip install bitsandbytes"):
        _go(toy_recipe(tmp_path / "run", optimizer="adamw-8bit"))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_asked_to_stop_it_finishes_the_update_saves_and_goes_on(tmp_path, name, code):
    _go(toy_recipe(tmp_path / "whole", {"noise": 0.1}))
    before = signal.getsignal(getattr(signal, name))
    stop = {"signal": name, "at": 6}
    with pytest.raises(StoppedError, match=r"Stopped after update 7 of 12 .*; the same command goes on") as caught:
        _go(toy_recipe(tmp_path / "run", {"noise": 0.1} | stop))
    assert caught.value.exit_code == code
    assert signal.getsignal(getattr(signal, name)) is before
    assert checkpoints(tmp_path / "run/state")[-1].name == "step-00000007"
    assert not (tmp_path / "run/export").exists()
    _forget(tmp_path / "run", stop)
    _go(toy_recipe(tmp_path / "run", {"noise": 0.1}))
    assert _same(_weights(tmp_path / "run"), _weights(tmp_path / "whole"))
    assert [line["update"] for line in _lines(tmp_path / "run")] == list(range(1, 13))
    for one, other in zip(_lines(tmp_path / "run"), _lines(tmp_path / "whole"), strict=True):
        assert one["loss"] == other["loss"]


def test_the_program_ends_with_143_after_sigterm(tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "toy"\nstep = "toy"\n[about]\npurpose = "p"\ncommand = "c"\nhardware = "h"\ntime = "t"\nfigure = "f"\n'
        '[data]\npath = "nowhere"\n[train]\nsteps = 9\nbatch_size = 2\nlearning_rate = 1e-2\nwarmup_steps = 0\n'
        '[options]\nsignal = "SIGTERM"\nat = 2\n'
    )
    assert main(["finetune", str(recipe), "--device", "cpu", "--quiet", "-o", str(tmp_path / "run")]) == 143
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if "Stopped after update 3 of 9" in line] and "Traceback" not in "".join(error)


def test_one_process_per_run_folder(tmp_path):
    script = (
        "from pathlib import Path; from inflate.train.guards import only_process\n"
        "with only_process(Path(sys.argv[1])): pause()\n"
    )
    with Paused(script, tmp_path / "run") as first:
        said = rf"Process {first.pid} on .* is training in .*run; wait for it, stop it, or choose another `output`\."
        with pytest.raises(InputError, match=said):
            _go(toy_recipe(tmp_path / "run"))
        assert not (tmp_path / "run/log.jsonl").exists()
    _go(toy_recipe(tmp_path / "run"))  # the lock is gone with its holder, which was killed
    assert not (tmp_path / "run/.lock").exists()


def test_a_worker_left_behind_does_not_hold_the_lock(tmp_path):
    # A child that was forked while the lock was held, as workers of a DataLoader are, outlives its killed parent.
    code = (
        "import os, signal, sys; from pathlib import Path; from inflate.train.guards import only_process\n"
        "with only_process(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child == 0: os.close(1); signal.pause()\n"
        "    print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, timeout=60, text=True)
    child = int(done.stdout)
    try:
        os.kill(child, 0)  # it is alive
        with only_process(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_loss_that_is_no_number_stops_before_the_weights_change(tmp_path):
    with pytest.raises(InputError, match=r"loss of 'toy' became nan at update 8; lower train.learning_rate"):
        _go(toy_recipe(tmp_path / "run", {"bad": 7}))
    lines = _lines(tmp_path / "run")
    assert lines[-1]["update"] == 8 and lines[-1]["loss"] is None and "lower" in lines[-1]["stopped"]
    found = json.loads((tmp_path / "run/diagnosis.json").read_text())["findings"]
    assert [finding["name"] for finding in found] == ["diverging"]
    assert [path.name for path in checkpoints(tmp_path / "run/state")] == ["step-00000005"]
    _forget(tmp_path / "run", {"bad"})
    _go(toy_recipe(tmp_path / "run", learning_rate=1e-3))
    assert [line["update"] for line in _lines(tmp_path / "run")] == list(range(1, 13))


@pytest.mark.parametrize(("update", "kept"), [(9, 5), (11, 10)])
def test_a_run_that_has_diverged_keeps_its_last_good_checkpoint_and_exports_nothing(tmp_path, update, kept):
    """Update 9 is followed by a checkpoint, update 11 by the export alone; one checkpoint is kept at a time."""
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"Training has diverged: \S*0\.bias holds values that are not finite"):
        _go(toy_recipe(folder, {"blown": update}, keep_checkpoints=1))
    [checkpoint] = checkpoints(folder / "state")
    assert checkpoint.name == f"step-{kept:08d}"
    assert all(bool(value.isfinite().all()) for value in load_file(checkpoint / "state.safetensors").values())
    assert not (folder / "export").exists()
    assert not [path for path in folder.rglob("*.inflate-*") if path.name.startswith(".")]


def test_what_it_says_and_writes(tmp_path, capsys):
    recipe = toy_recipe(
        tmp_path / "run", {"motion": 0.01}, "talking-toy", steps=20, validate_every=8, sample_every=10, log_every=5
    )
    train(recipe, device="cpu")
    said = capsys.readouterr().out
    assert said.index("A sentence about the data.") < said.index("Generated clips hardly move: 0.01 of the real")
    assert "The held-out loss fell from" in said
    assert said.rstrip().endswith(f"Now type: inflate generate --model {tmp_path / 'run/export'}")
    lines = _lines(tmp_path / "run")
    assert [line["update"] for line in lines] == [0, 5, 8, 10, 15, 16, 20]
    assert [line["update"] for line in lines if "validation_loss" in line] == [0, 8, 16, 20]
    assert all(line["temporal_change"] == 0.1 for line in lines)
    assert sorted(path.name for path in (tmp_path / "run/samples").iterdir()) == ["00000010", "00000020", "final"]
    told = json.loads((tmp_path / "run/diagnosis.json").read_text())
    assert {finding["name"]: finding["good"] for finding in told["findings"]} == {"static": False, "learned": True}
    assert told["advice"] == ["A sentence about the data."]


def test_with_learning_rate_0_it_says_that_nothing_has_been_learned(tmp_path, capsys):
    train(toy_recipe(tmp_path / "run", step="talking-toy", learning_rate=0.0, validate_every=6), device="cpu")
    assert "train.learning_rate is 0: nothing has been learned" in capsys.readouterr().out


def test_a_step_without_more_members_gets_sheets(tmp_path):
    _go(toy_recipe(tmp_path / "run", sample_every=6))
    assert sorted(path.name for path in (tmp_path / "run/sheets").iterdir()) == [
        "00000006.png",
        "00000012.png",
        "final.png",
    ]


def test_the_newest_checkpoints_are_kept(tmp_path):
    _go(toy_recipe(tmp_path / "run", checkpoint_every=2, keep_checkpoints=3))
    names = [path.name for path in checkpoints(tmp_path / "run/state")]
    assert names == ["step-00000008", "step-00000010", "step-00000012"]


def test_an_export_that_fails_leaves_the_one_before_it(tmp_path, monkeypatch):
    _go(toy_recipe(tmp_path / "run"))
    before = _weights(tmp_path / "run")

    def half(self, folder):
        folder.mkdir()
        (folder / "w.safetensors").write_bytes(b"half")
        raise OSError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(ToyStep, "export", half)
        with pytest.raises(OSError, match="no more"):
            _go(toy_recipe(tmp_path / "run", steps=13))
    assert _same(_weights(tmp_path / "run"), before)
    _go(toy_recipe(tmp_path / "run", steps=13))
    assert not _same(_weights(tmp_path / "run"), before)
    assert not list((tmp_path / "run").glob(".export*"))


def test_gradient_checkpointing_is_asked_of_the_image_model(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="gradient_checkpointing is true, and Sequential has no model that can"):
        _go(toy_recipe(tmp_path / "run", gradient_checkpointing=True))
    from diffusers import UNet2DModel

    import inflate

    class VideoStep(ToyStep):
        def __init__(self, recipe, device):
            torch.manual_seed(0)
            unet = UNet2DModel(
                sample_size=8,
                in_channels=2,
                out_channels=2,
                block_out_channels=(8, 8),
                layers_per_block=1,
                norm_num_groups=4,
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
            )
            self.trained = inflate.inflate(unet, num_frames=2)
            self.trained.freeze_image_model()
            self.checkpointing = unet

        def draw(self, update, first, batch_size):
            return {"x": torch.randn(batch_size, 2, 2, 8, 8)}

        def __call__(self, batch):
            asked.append(self.checkpointing.is_gradient_checkpointing)
            return toy.StepLoss(self.trained(batch["x"], 5, fps=8.0).sample.square().mean())

        def export(self, folder):
            inflate.save(self.trained, folder)

    asked = []
    monkeypatch.setattr(toy, "VideoStep", VideoStep, raising=False)
    monkeypatch.setitem(toy.TRAIN_STEPS, "video-toy", f"{toy.__name__}:VideoStep")
    for name, wanted in (("plain", False), ("less", True)):
        _go(toy_recipe(tmp_path / name, step="video-toy", steps=2, batch_size=1, gradient_checkpointing=wanted))
    assert asked == [False, False, True, True]
    plain, less = (load_file(tmp_path / name / "export/temporal.safetensors") for name in ("plain", "less"))
    for name, value in plain.items():
        torch.testing.assert_close(less[name], value, atol=1e-5, rtol=1e-4)


def test_trackers(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = toy_recipe(tmp_path / "run", {"signal": "SIGTERM", "at": 6}, trackers=("tensorboard",))
    with pytest.raises(StoppedError):
        _go(recipe)
    _forget(tmp_path / "run", {"signal", "at"})
    _go(toy_recipe(tmp_path / "run", trackers=("tensorboard",)))
    events = EventAccumulator(str(tmp_path / "run/trackers/inflate"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == list(range(1, 13))
    losses = [line["loss"] for line in _lines(tmp_path / "run")]
    assert [scalar.value for scalar in events.Scalars("loss")] == pytest.approx(losses)
    with pytest.raises(InputError, match=r"names 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        _go(toy_recipe(tmp_path / "other", trackers=("tensorbord",)))
    monkeypatch.setattr(log_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="names 'wandb', which is not installed: pip install wandb"):
        _go(toy_recipe(tmp_path / "other", trackers=("wandb",)))


GOOD = {"steps": 10, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("learning_rate", "weight_decay", "beta2", "ema_decay", "max_grad_norm")
            for value in (float("nan"), float("inf"), float("-inf"), -0.1, True, "1")
        ],
        *[(name, 1.0) for name in ("beta2", "ema_decay")],
        *[(name, 1.5) for name in ("learning_rate", "weight_decay", "beta2", "ema_decay")],
        ("max_grad_norm", 0.0),
        *[(name, -1) for name in ("warmup_steps", "decay_steps", "seed", "sample_every", "validate_every")],
        *[(name, 0) for name in ("steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints")],
        *[(name, 1.5) for name in ("warmup_steps", "seed", "steps")],
        ("seed", 2**63),
        ("optimizer", "adam"),
        ("mixed_precision", "fp8"),
        ("warmup_steps", 11),
        *[("learning_rate_scale", {"a": value}) for value in (float("nan"), float("inf"), -1.0, 0, 1e6)],
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_one_sentence(name, value):
    TrainOptions(**GOOD)
    with pytest.raises(InputError, match=rf"^train\.{name}[^\n]*\.$"):
        TrainOptions(**(GOOD | {name: value}))
