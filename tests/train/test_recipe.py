import importlib
import itertools
import json
import re
from pathlib import Path

import pytest

from inflate.cli.app import main
from inflate.data.clips import ClipOptions
from inflate.errors import InputError
from inflate.train.distill import phases_of
from inflate.train.recipe import TrainOptions, load_recipe, parse_table
from inflate.train.step import STEP_OPTIONS, TRAIN_STEPS
from inflate.train.steps.distillation import DistillationOptions

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/emoji/*.toml"))
MINIMAL = """
name = "x"
step = "autoencoder"
[about]
purpose = "p"
command = "c"
hardware = "h"
time = "t"
figure = "f"
[data]
path = "d"
[train]
steps = 10
batch_size = 2
learning_rate = 1e-3
warmup_steps = 1
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_there_are_recipes():
    assert len(RECIPES) >= 5


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_parses_and_says_what_it_is(path):
    recipe = load_recipe(path)
    assert recipe.step in [*TRAIN_STEPS, "distill"]
    command = "distill" if recipe.step == "distill" else "finetune"
    assert recipe.about.command == f"inflate {command} {path.relative_to(path.parents[2]).as_posix()}"
    assert recipe.data.split == "train"
    for text in (recipe.about.purpose, recipe.about.hardware, recipe.about.time, recipe.about.figure):
        assert len(text) > 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_options_of_every_recipe_fit_their_step(path):
    recipe = load_recipe(path)
    step, options = recipe.step, recipe.options
    if step == "distill":
        for phase in phases_of(recipe):
            assert parse_table(DistillationOptions, phase.options, "options")
        step, options = options["of"], options["step"]
    module, name = STEP_OPTIONS[step].split(":")
    assert parse_table(getattr(importlib.import_module(module), name), options, "options")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("[train]", "[trian]\nx = 1\n[train]"),
        ("steps = 10", "steps = 10\nbatchsize = 3"),
        ("steps = 10", "steps = 'ten'"),
        ("steps = 10", "steps = true"),
        ("steps = 10", ""),
        ("steps = 10", "steps = 0"),
        ("warmup_steps = 1", "warmup_steps = 11"),
        ("[data]\n", "[data]\nkinds = [1]\n"),
        ("step =", "step ="),
    ],
)
def test_bad_recipes_are_refused_with_one_sentence(tmp_path, capsys, change, sentence):
    text = MINIMAL.replace(change, sentence) if change != "step =" else MINIMAL.replace("x", "x[", 1) + "= ="
    path = _write(tmp_path, text)
    assert main(["finetune", str(path), "--dry-run"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    assert str(path) in error or "train." in error


def test_nearest_key_is_offered(tmp_path):
    with pytest.raises(InputError, match=re.escape("unknown key 'batchsize' (did you mean 'batch_size'?)")):
        load_recipe(_write(tmp_path, MINIMAL + "batchsize = 3\n"))


def test_missing_recipe_and_unknown_step(tmp_path, capsys):
    assert main(["finetune", str(tmp_path / "none.toml")]) == 2
    assert "There is no recipe at" in capsys.readouterr().err
    path = _write(tmp_path, MINIMAL.replace("autoencoder", "autoencodr"))
    assert main(["finetune", str(path), "--quiet", "-o", str(tmp_path / "run")]) == 2
    assert "(did you mean 'autoencoder'?)" in capsys.readouterr().err


def test_a_recipe_for_distill_says_so(tmp_path, capsys):
    path = _write(tmp_path, MINIMAL.replace("autoencoder", "distill"))
    assert main(["finetune", str(path), "--quiet", "-o", str(tmp_path / "run")]) == 2
    assert "run it with `inflate distill`" in capsys.readouterr().err


def test_overrides_and_dry_run(tmp_path, capsys):
    path = _write(tmp_path, MINIMAL)
    assert main(["finetune", str(path), "--dry-run", "--set", "train.steps=7", "--data", "elsewhere"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["train"]["steps"] == 7 and shown["data"]["path"] == "elsewhere"
    assert shown["train"]["ema_decay"] == 0.999
    assert main(["finetune", str(path), "--dry-run", "--set", "nonsense"]) == 2


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    options = TrainOptions(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10, decay_steps=49)
    rates = [options.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[49] == 1.0
    assert rates[99] == pytest.approx(1 / 50) and all(a >= b for a, b in itertools.pairwise(rates[50:]))


def test_one_item_needs_no_list():
    made = parse_table(ClipOptions, {"path": "clips", "size": 512, "fps": 8}, "data")
    assert (made.size, made.fps) == ((512,), (8.0,))
    assert made == parse_table(ClipOptions, {"path": "clips", "size": [512], "fps": [8.0]}, "data")
    with pytest.raises(InputError, match="data: size must be of type int, not 'large'"):
        parse_table(ClipOptions, {"path": "clips", "size": "large"}, "data")
