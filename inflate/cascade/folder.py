"""A cascade's folder: a diffusers pipeline folder with ``model_index.json``, read before any weights are."""

import filecmp
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inflate.checkpoint import resolve_path, what_it_is
from inflate.checkpoint.writing import finish_folder
from inflate.configs import read_object
from inflate.errors import InputError, nearest
from inflate.stage_table import stage_entry
from inflate.stages import Stage, StageSettings, stage_class, stages_of
from inflate.staging import staged

INDEX_NAME = "model_index.json"
_CARRIED_FILES = ("README.md", "LICENSE", "NOTICE")


def family_folder(folder_or_name: str | Path) -> Path:
    """The folder of a family: a path as it is, ``bundled:NAME`` inside the package.

    Raises:
        InputError: no such folder, or no such bundled family.
    """
    folder = resolve_path(folder_or_name)
    if folder.is_file():
        raise InputError(
            f"{folder} is {what_it_is(folder)}, and a whole pipeline is wanted here; name a pipeline's or a cascade's "
            "folder, or a role file (.toml) that says which folder plays which part."
        )
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name a cascade's folder or a bundled family (bundled:emoji).")
    return folder


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a cascade's folder; ``InputError`` where it is missing or damaged."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError(
            f"{folder} is {what_it_is(folder)} and not a cascade's or a pipeline's: it has no {INDEX_NAME}; name the "
            "folder that has one, or a role file (.toml) that names this one as a component."
        )
    index = read_object(path)
    if any(isinstance(entry, list) and len(entry) != 2 for entry in index.values()):
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
    players = stage_players(index, where)
    names = stages_of(components, where, players)
    classes = {name: stage_class(name, players.get(name, "")) for name in names}
    defaults = _by_stage(index, "stage_defaults", dict.fromkeys(names, StageSettings), where)
    configs = _by_stage(index, "stage_configs", {name: found.config_class for name, found in classes.items()}, where)
    return [
        found.from_folder(folder, components, defaults.get(name), configs.get(name)) for name, found in classes.items()
    ]


def stage_players(index: dict[str, Any], where: str) -> dict[str, str]:
    """Who plays the stages of an index that are not played by their own class, by stage name."""
    players = index.get("stage_players", {})
    if not isinstance(players, dict) or not all(isinstance(player, str) for player in players.values()):
        raise InputError(f"{where}: stage_players must give the name of a player for each stage it names.")
    for name, player in players.items():
        stage_entry(name, player)
    return players


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
    folder: Path,
    stages: Sequence[Stage],
    family: str | None,
    source: Path | None,
    overwrite: bool,
    change: Callable[[Path], None] | None = None,
) -> None:
    """Write stages as a pipeline folder, which appears whole or not at all.

    Args:
        folder: where to.
        stages: in order.
        family: the name these weights go by.
        source: the folder they came from, whose model card and licence go along.
        overwrite: replace an existing folder.
        change: what is done to the folder before it takes its place.

    Raises:
        InputError: ``folder`` exists and ``overwrite`` is not set, or two stages have different components of one name.
    """
    from inflate.version import __version__

    _check_one_folder_holds(stages)
    with staged(folder) as partial:
        if folder.exists() and not overwrite:
            raise InputError(f"{folder} exists; name another folder, or replace it with --force (overwrite=True).")
        index: dict[str, Any] = {"_class_name": "Cascade", "_inflate_version": __version__, "family": family}
        for stage in stages:
            index |= stage.save(partial)
        index["stage_defaults"] = {stage.name: asdict(stage.defaults) for stage in stages}
        index["stage_configs"] = {stage.name: asdict(stage.config) for stage in stages if asdict(stage.config)}
        index["stage_players"] = {stage.name: player for stage in stages if (player := getattr(stage, "player", ""))}
        for name in _CARRIED_FILES:
            if source is not None and (source / name).is_file():
                shutil.copy(source / name, partial / name)
        (partial / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if change is not None:
            change(partial)
        finish_folder(partial, folder)


def _check_one_folder_holds(stages: Sequence[Stage]) -> None:
    """Raise ``InputError`` where two stages from several folders have different components of the same name."""
    owners: dict[str, Any] = {}
    for stage in stages:
        for role in getattr(stage, "index", {}):
            other: Any = owners.setdefault(role, stage)
            here: Any = stage
            if other is not stage and not _same_files(other.path_of(role), here.path_of(role)):
                raise InputError(
                    f"One folder cannot hold this cascade: its stages {other.name!r} and {stage.name!r} both have a "
                    f"{role!r}, and these differ ({other.path_of(role)}, {here.path_of(role)}); keep the role file."
                )


def _same_files(one: Path, other: Path) -> bool:
    if one == other:
        return True
    names = [sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (one, other)]
    return names[0] == names[1] and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])
