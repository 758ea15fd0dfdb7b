"""A run that is started again with a changed recipe: what may change, and what makes it another training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from inflate.configs import read_object
from inflate.errors import InputError
from inflate.staging import write_whole
from inflate.train.recipe import Recipe

# What changes neither the batches nor the weights that the updates already done have made.
_FREE = frozenset(
    f"train.{name}"
    for name in (
        "steps",
        "decay_steps",
        "log_every",
        "checkpoint_every",
        "sample_every",
        "validate_every",
        "keep_checkpoints",
        "trackers",
    )
) | {"output", "data.cache"}
# What changes the updates to come, on purpose; it is said aloud.
_SPOKEN = ("train.learning_rate", "train.learning_rate_scale")
_ABSENT = object()


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys; lists are values."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def changed_keys(before: dict[str, Any], recipe: Recipe) -> dict[str, tuple[str, str]]:
    """Dotted keys whose values differ between a stored resolved recipe and ``recipe``, as (old, new) in words.

    A key that the stored recipe lacks, because it is older than the option, had the option's default.
    """
    after, defaults = flat(recipe.resolved()), _defaults(recipe)
    old = flat(before)
    differing = {}
    for key in [*after, *(key for key in old if key not in after)]:
        pair = (old.get(key, defaults.get(key, _ABSENT)), after.get(key, _ABSENT))
        if pair[0] != pair[1]:
            differing[key] = (_said(pair[0]), _said(pair[1]))
    return differing


def _defaults(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in ("data", "train"):
        for item in dataclasses.fields(getattr(recipe, section)):
            if item.default is not dataclasses.MISSING:
                found[f"{section}.{item.name}"] = json.loads(json.dumps(item.default))
    return found


def _said(value: Any) -> str:
    return "not set" if value is _ABSENT else json.dumps(value)


def check_changes(before: dict[str, Any], recipe: Recipe, done: int, folder: Path) -> list[str]:
    """Sentences about what has changed since the run in ``folder`` was started with the recipe ``before``.

    Raises:
        InputError: it cannot go on with ``recipe``; every key at fault is named with its old and its new value.
    """
    refused, sentences = [], []
    for key, (old, new) in changed_keys(before, recipe).items():
        spoken = key.startswith(_SPOKEN)
        if spoken:
            sentences.append(f"{key} was {old} and is {new} from update {done + 1} on.")
        elif key not in _FREE and not key.startswith("about."):
            refused.append(f"{key} was {old} and is {new}")
    if refused:
        raise InputError(
            f"{folder} holds a run that differs from this recipe's: {'; '.join(refused)}; "
            "choose another `output`, or delete the folder to start anew."
        )
    if recipe.train.steps < done:
        raise InputError(
            f"{folder} holds a run with {done} updates done, and train.steps is {recipe.train.steps}; "
            f"it must be at least {done}, or choose another `output`."
        )
    return sentences


def keep_recipe(folder: Path, recipe: Recipe, done: int) -> list[str]:
    """Write the resolved recipe as ``folder/recipe.json``, after comparing it with the one there.

    ``done``: updates of the newest checkpoint. A run that failed before its first checkpoint binds nobody.

    Returns:
        Sentences to print.

    Raises:
        InputError: as :func:`check_changes`, or the recipe that is there cannot be read.
    """
    path, sentences = folder / "recipe.json", []
    if done and path.is_file():
        try:
            before = read_object(path)
        except InputError as error:
            raise InputError(f"{error} Or choose another `output`.") from error
        sentences = check_changes(before, recipe, done, folder)
    write_whole(path, (json.dumps(recipe.resolved(), indent=2) + "\n").encode())
    return sentences
