"""A cascade's folder: a diffusers pipeline folder with ``model_index.json``, read before any weights are."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inflate.checkpoint import resolve_path
from inflate.errors import InputError, nearest
from inflate.stages import Stage, StageSettings, stage_class, stages_of

INDEX_NAME = "model_index.json"
_CARRIED_FILES = ("README.md", "LICENSE", "NOTICE")


def family_folder(folder_or_name: str | Path) -> Path:
    """The folder of a family: a path as it is, ``bundled:NAME`` inside the package.

    Raises:
        InputError: no such folder, or no such bundled family.
    """
    folder = resolve_path(folder_or_name)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name a cascade's folder or a bundled family (bundled:emoji).")
    return folder


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a cascade's folder; ``InputError`` where it is missing or damaged."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a cascade's folder: it has no {INDEX_NAME}.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if not isinstance(index, dict) or any(isinstance(entry, list) and len(entry) != 2 for entry in index.values()):
        raise InputError(f"{path} must be an object that gives [library, class] for each component.")
    return index


def read_stages(folder: Path, index: dict[str, Any]) -> list[Stage]:
    """The stages that an index names, in the order of the chain; their weights are not read yet."""
    components = {
        role: (str(entry[0]), str(entry[1]))
        for role, entry in index.items()
        if isinstance(entry, list) and not role.startswith("_") and entry != [None, None]
    }
    where = str(folder / INDEX_NAME)
    names = stages_of(components, where)
    defaults = _by_stage(index, "stage_defaults", {name: StageSettings for name in names}, where)
    configs = _by_stage(index, "stage_configs", {name: stage_class(name).config_class for name in names}, where)
    return [stage_class(name).from_folder(folder, components, defaults.get(name), configs.get(name)) for name in names]


def _by_stage(index: dict[str, Any], key: str, classes: dict[str, type], where: str) -> dict[str, Any]:
    found = {}
    for name, values in index.get(key, {}).items():
        if name not in classes:
            names = list(classes)
            raise InputError(f"{where}: {key} names {name!r}{nearest(name, names)}; it has {names}.")
        try:
            found[name] = classes[name](**values)
        except TypeError as error:
            raise InputError(f"{where}: {key} of {name!r} are not understood ({error}).") from error
    return found


def write_folder(
    folder: Path, stages: Sequence[Stage], family: str | None, source: Path | None, overwrite: bool
) -> None:
    """Write stages as a pipeline folder, which appears whole or not at all.

    Args:
        folder: where to.
        stages: in order.
        family: the name these weights go by.
        source: the folder they came from, whose model card and licence go along.
        overwrite: replace an existing folder.

    Raises:
        InputError: ``folder`` exists and ``overwrite`` is not set.
    """
    from inflate import __version__

    if folder.exists() and not overwrite:
        raise InputError(f"{folder} exists; name another folder, or ask for it to be overwritten.")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    partial.mkdir(parents=True)
    try:
        index: dict[str, Any] = {"_class_name": "Cascade", "_inflate_version": __version__, "family": family}
        for stage in stages:
            index |= stage.save(partial)
        index["stage_defaults"] = {stage.name: asdict(stage.defaults) for stage in stages}
        index["stage_configs"] = {stage.name: asdict(stage.config) for stage in stages if asdict(stage.config)}
        for name in _CARRIED_FILES:
            if source is not None and (source / name).is_file():
                shutil.copy(source / name, partial / name)
        (partial / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
