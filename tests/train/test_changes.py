"""Started again with a changed recipe: what goes on, what is refused and by which names."""

import dataclasses
import json

import pytest

from inflate.errors import InputError
from inflate.train.changes import changed_keys, keep_recipe
from inflate.train.loop import train
from inflate.train.recipe import About, DataOptions, TrainOptions
from inflate.train.state import checkpoints

from .toy import toy_recipe

STATED = {"width": 3, "model": {"layers": 2, "names": ["a", "b"]}}


def _recipe(folder, options=None, **changes):
    return toy_recipe(folder, STATED | (options or {}), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 30},
        {"steps": 7},
        {"decay_steps": 3},
        {"log_every": 3},
        {"checkpoint_every": 2},
        {"sample_every": 5},
        {"validate_every": 5},
        {"keep_checkpoints": 4},
        {"trackers": ("tensorboard",)},
    ],
)
def test_what_may_change_in_silence(tmp_path, changes):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    assert keep_recipe(tmp_path, _recipe(tmp_path, **changes), 7) == []
    [name] = changes
    written = json.loads((tmp_path / "recipe.json").read_text())["train"][name]
    assert written == (list(changes[name]) if name == "trackers" else changes[name])


def test_about_and_output_may_change(tmp_path):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    other = dataclasses.replace(_recipe(tmp_path / "moved"), about=About("a", "b", "c", "d", "e"))
    assert keep_recipe(tmp_path, other, 7) == []


def test_another_learning_rate_is_said(tmp_path):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    changed = _recipe(tmp_path, learning_rate=1e-3, learning_rate_scale={"0.weight": 2.0})
    assert keep_recipe(tmp_path, changed, 7) == [
        "train.learning_rate was 0.01 and is 0.001 from update 8 on.",
        "train.learning_rate_scale.0.weight was not set and is 2.0 from update 8 on.",
    ]


FIXED = {
    "batch_size": 5,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "beta2": 0.5,
    "max_grad_norm": 0.5,
    "gradient_accumulation_steps": 2,
    "ema_decay": 0.25,
    "mixed_precision": "bf16",
    "compile": True,
    "seed": 8,
    "optimizer": "adamw-8bit",
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize("name", FIXED)
def test_every_other_number_of_the_training_is_refused_by_name(tmp_path, name):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    before = (tmp_path / "recipe.json").read_text()
    with pytest.raises(InputError, match=rf"differs from this recipe's: train\.{name} was .* and is .*choose another"):
        keep_recipe(tmp_path, _recipe(tmp_path, **{name: FIXED[name]}), 7)
    assert (tmp_path / "recipe.json").read_text() == before


def test_no_number_of_the_training_was_forgotten():
    free = "steps decay_steps log_every checkpoint_every sample_every validate_every keep_checkpoints trackers".split()
    spoken = ["learning_rate", "learning_rate_scale"]
    assert {field.name for field in dataclasses.fields(TrainOptions)} == {*FIXED, *free, *spoken}


def test_each_changed_key_is_named_with_both_values(tmp_path):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    changed = _recipe(tmp_path, {"width": 4, "model": {"layers": 3, "names": ["a"], "new": "x"}}, seed=5, steps=20)
    changed = dataclasses.replace(changed, data=DataOptions("elsewhere", size=32))
    with pytest.raises(InputError) as caught:
        keep_recipe(tmp_path, changed, 7)
    sentence = str(caught.value)
    for said in (
        'data.path was "nowhere" and is "elsewhere"',
        "data.size was 64 and is 32",
        "train.seed was 0 and is 5",
        "options.width was 3 and is 4",
        "options.model.layers was 2 and is 3",
        'options.model.names was ["a", "b"] and is ["a"]',
        'options.model.new was not set and is "x"',
    ):
        assert said in sentence
    assert "train.steps" not in sentence and "\n" not in sentence


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    keep_recipe(tmp_path, _recipe(tmp_path), 0)
    with pytest.raises(InputError, match=r"7 updates done, and train.steps is 6; it must be at least 7"):
        keep_recipe(tmp_path, _recipe(tmp_path, steps=6), 7)


def test_a_recipe_from_before_an_option_had_its_default(tmp_path):
    recipe = _recipe(tmp_path)
    stored = recipe.resolved()
    for name in ("optimizer", "trackers", "gradient_checkpointing", "compile"):
        del stored["train"][name]
    assert changed_keys(stored, recipe) == {}
    assert list(changed_keys(stored, _recipe(tmp_path, optimizer="adamw-8bit"))) == ["train.optimizer"]


def test_a_run_that_failed_before_its_first_checkpoint_binds_nobody(tmp_path):
    with pytest.raises(InputError, match="became nan"):
        train(toy_recipe(tmp_path / "run", {"bad": 2}), device="cpu", quiet=True)
    assert (tmp_path / "run/log.jsonl").is_file() and not checkpoints(tmp_path / "run/state")
    train(toy_recipe(tmp_path / "run", {"width": 5}, seed=3), device="cpu", quiet=True)
    updates = [json.loads(line)["update"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert updates == list(range(1, 13))


def test_a_finished_run_can_be_made_longer(tmp_path, capsys):
    train(toy_recipe(tmp_path / "run"), device="cpu", quiet=True)
    train(toy_recipe(tmp_path / "run", steps=15, learning_rate=1e-3), device="cpu")
    said = capsys.readouterr().out
    assert "train.learning_rate was 0.01 and is 0.001 from update 13 on." in said
    assert "Resuming toy after update 12 of 15." in said
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert rates == [1e-2] * 12 + [1e-3] * 3
