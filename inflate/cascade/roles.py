"""A cascade assembled from other people's pipelines, by a small TOML file that names one folder per stage.

    name = "karlo"

    [prior]
    from = "karlo-v1-alpha"              # a pipeline's folder; paths are relative to this file

    [decoder]
    from = "karlo-video"                 # what `inflate convert karlo-v1-alpha karlo-video` made
    num_inference_steps = 25             # any of the stage's sampling settings, or of its configuration

    [decoder.components]
    unet = "runs/my-decoder/export/unet" # one component from elsewhere

Which class plays a stage follows from the folder's own ``model_index.json``; see :mod:`inflate.cascade.pipelines`.
Folders of cascades (``bundled:NAME`` too) can lend their stages as well. Nothing is copied, and weights are read when
their stage runs.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from inflate.bases.parts import OURS
from inflate.cascade.folder import INDEX_NAME, family_folder, read_index, read_stages
from inflate.cascade.pipelines import PIPELINES, Part
from inflate.checkpoint import resolve_path
from inflate.errors import InputError, a, nearest
from inflate.stage_table import STAGES, stage_entry
from inflate.stages import ComponentStage, Stage, StageSettings, stage_class

_FROM, _COMPONENTS = "from", "components"
_SETTINGS = tuple(one.name for one in fields(StageSettings))


def is_role_file(folder_or_name: str | Path) -> bool:
    """Whether a cascade's name is that of a role file rather than of a folder."""
    return str(folder_or_name).endswith(".toml")


@dataclass(frozen=True)
class Role:
    """One stage's table of a role file, its paths resolved."""

    stage: str
    where: str  # for messages
    folder: Path
    components: dict[str, Path]
    options: dict[str, Any]  # settings and configuration together


def read_roles(path: Path) -> tuple[list[Stage], str | None]:
    """The stages that a role file names, in the order of the chain, and the cascade's name; no weights are read.

    Raises:
        InputError: no such file, or it is no TOML; an unknown stage, option or component; a folder that is missing, or
            no pipeline's, or plays no such stage; stages that do not fit each other.
    """
    roles, family = _parse(path)
    stages = [_stage(role) for role in roles]
    _lend_image_encoder(stages)
    check_fit(stages, str(path))
    return stages, family  # pyright: ignore[reportReturnType]


def read_pipeline(folder: Path, index: dict[str, Any]) -> list[Stage]:
    """The stages that one pipeline's folder can play, in the order of the chain; no weights are read."""
    parts = PIPELINES[str(index["_class_name"])]
    stages = [_stage(Role(stage, str(folder), folder, {}, {})) for stage in STAGES if stage in parts]
    check_fit(stages, str(folder))
    return stages  # pyright: ignore[reportReturnType]


def _parse(path: Path) -> tuple[list[Role], str | None]:
    if not path.is_file():
        raise InputError(f"There is no role file {path}.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}).") from error
    if isinstance(tables.get("roles"), dict):
        raise InputError(
            f"{path} is a family file, which names trained parts; run 'inflate assemble {path} FOLDER' and name that "
            "folder."
        )
    if isinstance(tables.get("train"), dict):
        raise InputError(f"{path} is a recipe; run 'inflate finetune {path}' and name the export of that run.")
    family = tables.pop("name", None)
    if family is not None and not isinstance(family, str):
        raise InputError(f"{path}: name must be a text, got {family!r}.")
    for stage, table in tables.items():
        if stage not in STAGES:
            raise InputError(
                f"{path}: there is no role {stage!r}{nearest(stage, [*STAGES, 'name'])}; known: {', '.join(STAGES)}."
            )
        if not isinstance(table, dict) or not isinstance(table.get(_FROM), str):
            raise InputError(f'{path}: the role {stage!r} must say which folder plays it: from = "FOLDER".')
    if not tables:
        raise InputError(f"{path} names no role; give at least one of {', '.join(STAGES)}.")
    return [_role(path, stage, dict(tables[stage])) for stage in STAGES if stage in tables], family


def _role(path: Path, stage: str, table: dict[str, Any]) -> Role:
    where = f"{path}, [{stage}]"
    folder = _resolved(path, table.pop(_FROM))
    components = table.pop(_COMPONENTS, {})
    if not isinstance(components, dict) or not all(isinstance(value, str) for value in components.values()):
        raise InputError(f"{where}: components must name a folder for each component.")
    if not folder.is_dir():
        raise InputError(f"{where}: there is no folder {folder}.")
    return Role(stage, where, folder, {name: _resolved(path, value) for name, value in components.items()}, table)


def _resolved(path: Path, name: str) -> Path:
    """A folder's path, relative to the role file; ``bundled:NAME`` as ever."""
    found = resolve_path(name)
    return found if found.is_absolute() else path.parent / found


def _stage(role: Role) -> ComponentStage:
    index = read_index(role.folder)
    pipeline = index.get("_class_name")
    if pipeline == "Cascade":
        return _own_stage(role, index)
    if pipeline not in PIPELINES:
        known = ", ".join(("Cascade", *PIPELINES))
        raise InputError(f"{role.where}: {role.folder} is {a(str(pipeline))}, which plays no role; known: {known}.")
    part = PIPELINES[pipeline].get(role.stage)
    if part is None:
        raise InputError(
            f"{role.where}: {role.folder} is {a(str(pipeline))}, which cannot be the {role.stage}; "
            f"it can be: {', '.join(PIPELINES[pipeline])}."
        )
    entries, paths = _components(role, index, part)
    found = stage_class(role.stage, part.player)
    config = found.config_class(**part.values | _said(index, part.config, found.config_class))
    stage = found(index=entries, paths=paths, defaults=part.settings, config=config)
    stage.defaults, stage.config = _options(role, stage.defaults, config)
    return stage


def _said(index: dict[str, Any], names: tuple[str, ...], config_class: type) -> dict[str, Any]:
    """What of a stage's configuration an index says: in its own words, or in ours, which diffusers passes over."""
    ours = index.get(OURS) if isinstance(index.get(OURS), dict) else {}
    known = [one.name for one in fields(config_class)]
    return {name: index[name] for name in names if name in index} | {
        name: value for name, value in (ours or {}).items() if name in known
    }


def _own_stage(role: Role, index: dict[str, Any]) -> ComponentStage:
    """A stage that a cascade's folder lends."""
    stages: dict[str, Any] = {stage.name: stage for stage in read_stages(family_folder(role.folder), index)}
    if role.stage not in stages:
        raise InputError(f"{role.where}: the cascade in {role.folder} has no {role.stage}; it has {', '.join(stages)}.")
    stage = stages[role.stage]
    _check_components(role, stage.player)
    for name, folder in role.components.items():
        stage.index[name] = _entry_of(role, name, folder, stage.index.get(name))
        stage.paths[name] = folder
    stage.defaults, stage.config = _options(role, stage.defaults, stage.config)
    return stage


def _components(role: Role, index: dict[str, Any], part: Part) -> tuple[dict[str, tuple[str, str]], dict[str, Path]]:
    """[library, class] and folder of each component."""
    _check_components(role, part.player)
    entries, paths = {}, {}
    for name, source in part.components.items():
        entry = index.get(source)
        if isinstance(entry, list) and entry != [None, None]:
            entries[name], paths[name] = (str(entry[0]), str(entry[1])), role.folder / source
        elif name not in part.optional and name not in role.components:
            raise InputError(
                f"{role.where}: {role.folder / INDEX_NAME} has no {source!r}, which the {role.stage} needs."
            )
    for name, folder in role.components.items():
        entries[name] = _entry_of(role, name, folder, entries.get(name))
        paths[name] = folder
    for name, folder in paths.items():
        if not folder.is_dir():
            raise InputError(f"{role.where}: there is no folder {folder}, which is to be its {name!r}.")
    return entries, paths


def _check_components(role: Role, player: str) -> None:
    entry = stage_entry(role.stage, player)
    known = [*entry.needs, *entry.takes]
    for name in role.components:
        if name not in known:
            raise InputError(
                f"{role.where}: it has no component {name!r}{nearest(name, known)}; it has {', '.join(known)}."
            )


def _entry_of(role: Role, name: str, folder: Path, usual: tuple[str, str] | None) -> tuple[str, str]:
    """[library, class] of a component given by its own folder: what its config says, else what is usual there."""
    import json

    for file in ("config.json", "scheduler_config.json"):
        path = folder / file
        if path.is_file():
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is not JSON ({error}).") from error
            if "_class_name" in config:
                # A class that lies beside a pipeline is known by the library its usual entry names.
                same = usual is not None and usual[1] == config["_class_name"]
                return usual if same and usual is not None else ("diffusers", str(config["_class_name"]))
            if config.get("architectures"):
                return "transformers", str(config["architectures"][0])
    if usual is None:
        if name == "image_processor":
            return "transformers", "CLIPImageProcessor"
        raise InputError(f"{role.where}: {folder} is no component's folder: it has no config that names a class.")
    return usual


def _options(role: Role, settings: StageSettings, config: Any) -> tuple[StageSettings, Any]:
    """Settings and configuration of a stage, changed by the role file."""
    of_config = [one.name for one in fields(config)]
    for name in role.options:
        if name not in (*_SETTINGS, *of_config):
            known = [_FROM, _COMPONENTS, *_SETTINGS, *of_config]
            raise InputError(f"{role.where}: unknown key {name!r}{nearest(name, known)}; known: {', '.join(known)}.")
    try:
        return (
            replace(settings, **{name: value for name, value in role.options.items() if name in _SETTINGS}),
            replace(config, **{name: value for name, value in role.options.items() if name in of_config}),
        )
    except TypeError as error:
        raise InputError(f"{role.where}: its options are not understood ({error}).") from error
    except InputError as error:
        raise InputError(f"{role.where}: {error}") from error


def _lend_image_encoder(stages: list[ComponentStage]) -> None:
    """Kandinsky's decoder is guided away from the embedding of an empty picture, which the prior's encoder makes."""
    named = {stage.name: stage for stage in stages}
    prior, decoder = named.get("prior"), named.get("decoder")
    role = "image_encoder"
    if prior is None or decoder is None or role in decoder.index or role not in prior.index:
        return
    if role in stage_entry("decoder", decoder.player).takes:
        decoder.index[role], decoder.paths[role] = prior.index[role], prior.path_of(role)


def check_fit(stages: list[ComponentStage], where: str) -> None:
    """Raise ``InputError`` where one stage's embeddings or frames have another size than the next one's input."""
    named: dict[str, Any] = {stage.name: stage for stage in stages}
    prior, decoder, enlarger = named.get("prior"), named.get("decoder"), named.get("super_resolution")
    for name in ("decoder", "interpolation"):
        made = None if prior is None else prior.embed_size()
        taken = named[name].embed_size() if name in named else None
        if isinstance(made, int) and isinstance(taken, int) and made != taken:
            raise InputError(
                f"{where}: the prior gives image embeddings of {made} numbers, the {name} takes {taken}; "
                "both must be of one family."
            )
    # Cascades of our own are trained on cuts, and their networks' sample_size is not that of pictures.
    if decoder is not None and enlarger is not None and enlarger.folder is None:
        made, taken = decoder.frame_size(), enlarger.low_size()
        if made is not None and taken is not None and made != taken:
            raise InputError(
                f"{where}: the decoder makes frames of {made} px, super_resolution was trained on {taken} px; "
                "leave one of them out or take both from one family."
            )
