"""Role files: a small TOML file that says what plays each stage of a cascade.

    name = "karlo"
    card = "karlo.md"                    # copied as README.md where `inflate assemble` writes the cascade
    half = true                          # whether that writes float32 weights as float16, which it does if not told

    [prior]
    from = "karlo-v1-alpha"              # a pipeline's or a cascade's folder, or bundled:NAME

    [decoder]
    from = "karlo-video"                 # what `inflate convert karlo-v1-alpha karlo-video` made
    num_inference_steps = 25             # any of the stage's sampling settings, or of its configuration

    [decoder.components]
    unet = "runs/my-decoder/export/unet" # one component from elsewhere

    [super_resolution.components]        # a stage of ours without `from`: each component it needs, by its folder
    sr_unet = "runs/my-sr/export/unet"
    sr_scheduler = "runs/my-sr/export/scheduler"

What plays a stage with ``from`` follows from that folder's ``model_index.json``; see :mod:`inflate.cascade.pipelines`.
Components that several stages of ours take may stand once, under ``[roles]``; settings and configuration may also stand
under ``[stage_defaults.STAGE]`` and ``[stage_configs.STAGE]``. Paths are relative to the file, or, where nothing of
that name lies there, to the folder that the program runs in.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from inflate.checkpoint import resolve_path, what_it_is
from inflate.errors import InputError, nearest
from inflate.stage_table import STAGES
from inflate.stages import known_components

FROM, COMPONENTS = "from", "components"
_Name = Annotated[str, StringConstraints(min_length=1)]


class _StageTable(BaseModel):
    """One stage's table; what its other keys may be depends on who plays the stage."""

    model_config = ConfigDict(strict=True, extra="allow")
    source: _Name | None = Field(None, alias=FROM)
    components: dict[str, _Name] = {}


class _Table(BaseModel):
    """The whole file, stages by name."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str | None = None
    card: str = ""
    half: bool = True
    roles: dict[str, _Name] = {}
    stage_defaults: dict[str, dict[str, Any]] = {}
    stage_configs: dict[str, dict[str, Any]] = {}
    stages: dict[str, _StageTable] = {}


@dataclass(frozen=True)
class Role:
    """What plays one stage: the stage that ``folder`` has, or one of ours made of ``components``; paths are resolved.

    ``where`` is for messages; ``options`` are settings and configuration together.
    """

    stage: str
    where: str
    folder: Path | None
    components: dict[str, Path]
    options: dict[str, Any]


@dataclass(frozen=True)
class RoleFile:
    """What a role file says; ``roles`` in the order of the chain, ``card`` and ``half`` for writing the cascade."""

    roles: tuple[Role, ...]
    name: str | None
    card: Path | None
    half: bool


def is_role_file(folder_or_name: str | Path) -> bool:
    """Whether a cascade's name is that of a role file rather than of a folder."""
    return str(folder_or_name).endswith(".toml")


def read_role_file(path: Path) -> RoleFile:
    """Read a role file strictly; what it names is looked at, but no config and no weights are read.

    Raises:
        InputError: no such file, or it is no TOML, or a recipe; an unknown key, stage or component, a value of a wrong
            type, a folder that is missing, a stage with only part of its components, or no stage at all.
    """
    table = _read_toml(path)
    head = {key: value for key, value in table.items() if key in _Table.model_fields and key != "stages"}
    stages = {key: value for key, value in table.items() if key not in head}
    for stage in stages:
        if stage not in STAGES:
            known = [*STAGES, *(name for name in _Table.model_fields if name != "stages")]
            raise InputError(f"{path}: there is no role {stage!r}{nearest(stage, known)}; known: {', '.join(STAGES)}.")
    try:
        read = _Table.model_validate(head | {"stages": stages})
    except ValidationError as error:
        raise InputError(_sentence(str(path), error)) from error
    _check_names(path, read)
    found = [_role(path, stage, read) for stage in STAGES]
    roles = tuple(role for role in found if role is not None)
    if not roles:
        raise InputError(f"{path} names no role; give at least one of {', '.join(STAGES)}.")
    for name in read.roles:
        if not any(name in role.components for role in roles):
            raise InputError(f"{path}, [roles]: no stage here takes the component {name!r}; leave it out.")
    card = resolved(path, read.card) if read.card else None
    if card is not None and not card.is_file():
        raise InputError(f"{path}: the card is to be {read.card}, and there is no such file.")
    return RoleFile(roles, read.name, card, read.half)


def resolved(path: Path, name: str) -> Path:
    """What a role file calls ``name``: relative to it, or else to the working folder; ``bundled:NAME`` as ever."""
    found = resolve_path(name)
    beside = path.parent / found  # `found` itself where it is absolute
    return found if found.exists() and not beside.exists() else beside


def checked_options(role: Role, names: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of a role's table, each of the type that ``names`` has for it.

    Raises:
        InputError: an unknown key, or a value of another type.
    """
    checked = {}
    for name, value in values.items():
        if name not in names:
            known = [FROM, COMPONENTS, *names]
            raise InputError(f"{role.where}: unknown key {name!r}{nearest(name, known)}; known: {', '.join(known)}.")
        adapter = TypeAdapter(names[name], config=ConfigDict(strict=True, allow_inf_nan=False))
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            raise InputError(_sentence(f"{role.where}, {name}", error)) from error
    return checked


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"There is no role file {path}.")
    if path.is_dir() or not is_role_file(path):
        raise InputError(f"{path} is {what_it_is(path)}, and a role file (.toml) is wanted here.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}); mend that line.") from error
    if isinstance(table.get("train"), dict):
        raise InputError(f"{path} is a recipe; run 'inflate finetune {path}' and name the export of that run.")
    return table


def _check_names(path: Path, read: _Table) -> None:
    """Raise ``InputError`` for stages and components that there are not."""
    for key in ("stage_defaults", "stage_configs"):
        for stage in getattr(read, key):
            if stage not in STAGES:
                close = nearest(stage, list(STAGES))
                raise InputError(f"{path}, [{key}]: there is no stage {stage!r}{close}; known: {', '.join(STAGES)}.")
    known = known_components()
    for name in read.roles:
        if name not in known:
            raise InputError(f"{path}, [roles]: no stage has a component {name!r}{nearest(name, known)}.")


def _role(path: Path, stage: str, read: _Table) -> Role | None:
    """What plays a stage; None where the file does not name it."""
    where, table, entry = f"{path}, [{stage}]", read.stages.get(stage), STAGES[stage]
    named: dict[str, str] = {}
    if table is None or table.source is None:
        named = {name: folder for name, folder in read.roles.items() if name in (*entry.needs, *entry.takes)}
        if table is None and not any(name in named for name in entry.needs):
            return None
    options = {**read.stage_defaults.get(stage, {}), **read.stage_configs.get(stage, {})}
    if table is not None:
        named |= table.components
        options |= table.model_extra or {}
    components = {name: resolved(path, folder) for name, folder in named.items()}
    for name, folder in components.items():
        if not folder.is_dir():
            raise InputError(f"{where}: there is no folder {folder}, which is to be its {name!r}; train it first.")
    if table is not None and table.source is not None:
        folder = resolved(path, table.source)
        if not folder.is_dir():
            raise InputError(f"{where}: there is no folder {folder}.")
        return Role(stage, where, folder, components, options)
    lacking = [name for name in entry.needs if name not in components]
    if len(lacking) == len(entry.needs):
        raise InputError(
            f'{where} must say which folder plays it: from = "FOLDER", or a folder for each of {", ".join(lacking)} '
            f"under [{stage}.components]."
        )
    if lacking:
        raise InputError(f"{where}: without from = the stage {stage!r} lacks its component {lacking[0]!r}; name it.")
    return Role(stage, where, None, components, options)


def _sentence(where: str, error: ValidationError) -> str:
    """The first of pydantic's findings ("Input should be a valid string"), with its place and what was there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part != "stages")
    tables = first["type"] in ("dict_type", "model_type")
    what = "should be a table" if tables else first["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{where}{f', {place}' if place else ''} {what}, got {first['input']!r}."
