"""What can be told of a recipe before anything is made or read for it: its values, and the places that it names."""

import dataclasses
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from inflate.bases import open_base
from inflate.checkpoint import resolve_path
from inflate.data.clips.buckets import sizes_for
from inflate.errors import InputError
from inflate.places import check_place
from inflate.train.recipe import VIDEO, Recipe, parse_table
from inflate.train.step import STEP_OPTIONS, check_step

# Options that name a folder, and the file that a folder of that kind has.
_FOLDERS = {
    "clip": "config.json",
    "vae": "config.json",
    "ship_vae": "config.json",
    "image_model": "config.json",
    "unet": "config.json",
    "scheduler": "scheduler_config.json",
    "text": "text_encoder/config.json",
}
# Those whose folder may be a network's own or a pipeline's; a motion module is a file.
_MODELS = ("teacher", "init")


def check_values(recipe: Recipe) -> Any:
    """The parsed options of a recipe's step; None for a step from elsewhere, which looks at its own.

    Raises:
        InputError: no such step, or options that it cannot have.
    """
    check_step(recipe)
    if recipe.step not in STEP_OPTIONS:
        return None
    module, name = STEP_OPTIONS[recipe.step].split(":")
    options = parse_table(getattr(import_module(module), name), recipe.options, "options")
    for item in dataclasses.fields(options):
        if item.default is item.default_factory is dataclasses.MISSING and getattr(options, item.name) == "":
            raise InputError(f"options.{item.name} is empty; say what it should be.")
    if hasattr(options, "of"):  # a distillation's: the options of the step that trained the teacher
        check_values(dataclasses.replace(recipe, step=options.of, options=options.step))
    return options


def check_recipe(recipe: Recipe) -> None:
    """Check a recipe's values, and that what it reads is there and what it writes could be.

    Raises:
        InputError: the first that cannot be.
    """
    check_output_folder(recipe.output_folder)
    options = check_values(recipe)
    if options is None:
        return
    if recipe.step == VIDEO:
        sizes_for(recipe.clip_options, open_base(options.model, options.parts or None).multiple)
    clips = recipe.clips
    places = {"path": clips.path, "pictures": clips.pictures} if clips else {"path": recipe.data.path}
    for name, place in places.items():
        if place and not Path(place).exists():
            raise InputError(f"data.{name} is {place}, which is not there; name a folder, or a prepared data set.")
    _check_folders(options)
    if hasattr(options, "of"):
        inner = dataclasses.replace(recipe, step=options.of, options=options.step)
        _check_folders(check_values(inner))


def check_output_folder(folder: Path) -> None:
    """Raise ``InputError`` where no run could have its folder there."""
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output is {folder}, which is a file; name a folder.")
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"output is {folder}, which may not be written to; name another folder.")


def _check_folders(options: Any) -> None:
    for item in dataclasses.fields(options):
        folder = getattr(options, item.name)
        if item.name not in (*_FOLDERS, *_MODELS) or not folder:
            continue
        path = resolve_path(folder)
        if not path.exists():
            raise InputError(f"options.{item.name} is {folder}, which is not there; train it first, or name another.")
        needed = _FOLDERS.get(item.name, "config.json")
        known = path.is_file() or any(path.glob("*/config.json")) if item.name in _MODELS else False
        if not known and not (path / needed).is_file():
            raise InputError(f"options.{item.name} is {folder}, which has no {needed}; name a folder that has one.")
