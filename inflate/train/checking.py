"""What can be told of a recipe before anything is made or read for it: its values, and the places that it names."""

import dataclasses
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from inflate.bases import open_base
from inflate.bases.autoencoder import pixels_per_cell
from inflate.bases.parts import INDEX_NAME, part_config
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
# Which part of a whole pipeline's folder such an option, or a step's `init`, stands for.
_PARTS = {
    "clip": "clip",
    "vae": "vae",
    "ship_vae": "vae",
    "scheduler": "scheduler",
    "image_model": "unet",
    "unet": "unet",
}
_STARTS = {"prior": "prior", "decoder": "unet", "frame-decoder": "frame_decoder"}
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
    recipe = place_folders(recipe)
    options = check_values(recipe)
    if options is None:
        return
    if recipe.step == VIDEO:
        base = open_base(options.model, options.parts or None, options.variant or None)
        sizes_for(recipe.clip_options, base.multiple)
    clips = recipe.clips
    places = {"path": clips.path, "pictures": clips.pictures} if clips else {"path": recipe.data.path}
    for name, place in places.items():
        if place and not Path(place).exists():
            raise InputError(f"data.{name} is {place}, which is not there; name a folder, or a prepared data set.")
    _check_folders(options)
    if not clips and getattr(options, "vae", ""):
        _check_size(recipe.data.size, Path(options.vae))
    if hasattr(options, "of"):
        inner = dataclasses.replace(recipe, step=options.of, options=options.step)
        _check_folders(check_values(inner))


def place_folders(recipe: Recipe) -> Recipe:
    """The recipe with the folders that its options name as paths: ``bundled:NAME`` inside the package, and for a whole
    pipeline's folder the part of it that the option is for."""
    return dataclasses.replace(recipe, options=_placed(recipe.options, recipe.step))


def _placed(options: dict[str, Any], step: str) -> dict[str, Any]:
    placed = dict(options)
    for name, value in options.items():
        if name in (*_FOLDERS, *_MODELS) and isinstance(value, str) and value:
            placed[name] = str(_place(name, value, step))
    if isinstance(options.get("step"), dict):  # a distillation's: the options of the step that trained the teacher
        placed["step"] = _placed(options["step"], str(options.get("of", "")))
    return placed


def _place(option: str, folder: str, step: str) -> Path:
    path = resolve_path(folder)
    part = _STARTS.get(step, "") if option == "init" else _PARTS.get(option, "")
    return path / part if part and (path / INDEX_NAME).is_file() and (path / part).is_dir() else path


def check_output_folder(folder: Path) -> None:
    """Raise ``InputError`` where no run could have its folder there."""
    check_place(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output is {folder}, which is a file; name a folder.")
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"output is {folder}, which may not be written to; name another folder.")


def _check_size(size: int, folder: Path) -> None:
    factor = pixels_per_cell(part_config(folder))
    if size % factor:
        raise InputError(
            f"data.size is {size}, but the autoencoder in {folder} takes multiples of {factor} pixels; use "
            f"{max(1, size // factor) * factor} or {(size // factor + 1) * factor}."
        )


def _check_folders(options: Any) -> None:
    for item in dataclasses.fields(options):
        folder = getattr(options, item.name)
        if item.name not in (*_FOLDERS, *_MODELS) or not folder:
            continue
        path = Path(folder)
        if not path.exists():
            raise InputError(f"options.{item.name} is {folder}, which is not there; train it first, or name another.")
        needed = _FOLDERS.get(item.name, "config.json")
        known = path.is_file() or any(path.glob("*/config.json")) if item.name in _MODELS else False
        if not known and not (path / needed).is_file():
            raise InputError(f"options.{item.name} is {folder}, which has no {needed}; name a folder that has one.")
