"""The stages of a cascade that a role file names, or that somebody's pipeline folder can play.

Nothing is copied, and weights are read when their stage runs. What a role file may say is in
:mod:`inflate.cascade.role_file`.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from inflate.bases.parts import OURS
from inflate.cascade.folder import INDEX_NAME, family_folder, read_index, read_stages
from inflate.cascade.pipelines import PIPELINES, Part
from inflate.cascade.role_file import Role, RoleFile, checked_options
from inflate.components import DIFFUSERS_STEM, TRANSFORMERS_STEM, files_by_variant
from inflate.configs import read_object
from inflate.errors import InputError, a, nearest
from inflate.schedulers import SCHEDULERS
from inflate.stage_table import STAGES, stage_entry
from inflate.stages import ComponentStage, Stage, StageSettings, stage_class

_STAGE_CONFIG = "stage_config.json"  # what training writes beside a network that its stage must know


def stages_of_roles(file: RoleFile, where: str) -> list[ComponentStage]:
    """The stages that a role file names, in the order of the chain; no weights are read.

    Raises:
        InputError: an unknown option or component; a folder that is no pipeline's, or plays no such stage; stages that
            do not fit each other.
    """
    stages = [_stage(role) for role in file.roles]
    _lend_image_encoder(stages)
    _lend_image_weights(stages)
    check_fit(stages, where, [role.stage for role in file.roles if role.folder is None])
    return stages


def read_pipeline(folder: Path, index: dict[str, Any]) -> list[Stage]:
    """The stages that one pipeline's folder can play, in the order of the chain; no weights are read."""
    parts = PIPELINES[str(index["_class_name"])]
    stages = [_stage(Role(stage, str(folder), folder, {}, {})) for stage in STAGES if stage in parts]
    check_fit(stages, str(folder))
    return stages  # pyright: ignore[reportReturnType]


def _stage(role: Role) -> ComponentStage:
    if role.folder is None:
        return _assembled_stage(role)
    index = read_index(role.folder)
    pipeline = index.get("_class_name")
    if pipeline == "Cascade":
        return _own_stage(role, role.folder, index)
    if pipeline not in PIPELINES:
        known = ", ".join(("Cascade", *PIPELINES))
        raise InputError(f"{role.where}: {role.folder} is {a(str(pipeline))}, which plays no role; known: {known}.")
    part = PIPELINES[pipeline].get(role.stage)
    if part is None:
        raise InputError(
            f"{role.where}: {role.folder} is {a(str(pipeline))}, which cannot be the {role.stage}; "
            f"it can be: {', '.join(PIPELINES[pipeline])}."
        )
    entries, paths = _components(role, role.folder, index, part)
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


def _assembled_stage(role: Role) -> ComponentStage:
    """A stage of ours whose components lie in folders of their own, as training leaves them."""
    _check_components(role, "")
    entries = {name: _entry_of(role, name, folder, None) for name, folder in role.components.items()}
    stage = stage_class(role.stage)(index=entries, paths=role.components)
    stage.defaults, stage.config = _options(role, stage.defaults, stage.config)
    return stage


def _own_stage(role: Role, folder: Path, index: dict[str, Any]) -> ComponentStage:
    """A stage that a cascade's folder lends."""
    stages: dict[str, Any] = {stage.name: stage for stage in read_stages(family_folder(folder), index)}
    if role.stage not in stages:
        raise InputError(f"{role.where}: the cascade in {folder} has no {role.stage}; it has {', '.join(stages)}.")
    stage = stages[role.stage]
    _check_components(role, stage.player)
    for name, folder in role.components.items():
        stage.index[name] = _entry_of(role, name, folder, stage.index.get(name))
        stage.paths[name] = folder
    stage.defaults, stage.config = _options(role, stage.defaults, stage.config)
    return stage


def _components(
    role: Role, folder: Path, index: dict[str, Any], part: Part
) -> tuple[dict[str, tuple[str, str]], dict[str, Path]]:
    """[library, class] and folder of each component."""
    _check_components(role, part.player)
    entries, paths = {}, {}
    for name, source in part.components.items():
        entry = index.get(source)
        if isinstance(entry, list) and entry != [None, None]:
            entries[name], paths[name] = (str(entry[0]), str(entry[1])), folder / source
        elif name not in part.optional and name not in role.components:
            raise InputError(f"{role.where}: {folder / INDEX_NAME} has no {source!r}, which the {role.stage} needs.")
    for name, path in role.components.items():
        entries[name], paths[name] = _entry_of(role, name, path, entries.get(name)), path
    for name, path in paths.items():
        if not path.is_dir():
            raise InputError(f"{role.where}: there is no folder {path}, which is to be its {name!r}.")
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
    if name == "interpolation_unet":  # inflated, perhaps without the image weights that the decoder's network has
        return "inflate", "InflatedModel"
    for file in ("config.json", "scheduler_config.json"):
        config = _json_of(folder / file)
        if "_class_name" in config:
            # A class that lies beside a pipeline is known by the library its usual entry names.
            class_name = str(config["_class_name"])
            if usual is not None and usual[1] == class_name:
                return usual
            return "inflate" if class_name in SCHEDULERS else "diffusers", class_name
        if "model_cfg" in config:
            return "open_clip", "CLIP"
        if config.get("architectures"):
            return "transformers", str(config["architectures"][0])
    if usual is None:
        if name == "image_processor":
            return "transformers", "CLIPImageProcessor"
        raise InputError(f"{role.where}: {folder} is no component's folder: it has no config that names a class.")
    return usual


def _json_of(path: Path) -> dict[str, Any]:
    """An object from a JSON file, empty where there is no such file."""
    return read_object(path) if path.is_file() else {}


def _options(role: Role, settings: StageSettings, config: Any) -> tuple[StageSettings, Any]:
    """Settings and configuration of a stage, changed by what training wrote beside its components, and by the file."""
    of_settings, of_config = get_type_hints(StageSettings), get_type_hints(type(config))
    values: dict[str, Any] = {}
    for name in STAGES[role.stage].needs:
        if name in role.components:
            values |= _json_of(role.components[name].parent / _STAGE_CONFIG)
    options = checked_options(role, {**of_settings, **of_config}, values | role.options)
    try:
        return (
            replace(settings, **{name: value for name, value in options.items() if name in of_settings}),
            replace(config, **{name: value for name, value in options.items() if name in of_config}),
        )
    except InputError as error:
        raise InputError(f"{role.where}: {error}") from error


def choose_weights(stages: Sequence[ComponentStage], variant: str, where: str) -> None:
    """Have stages read the weights of one variant where a component has them.

    Raises:
        InputError: none has.
    """
    folders = [stage.path_of(role) for stage in stages for role in stage.index]
    there = {
        name
        for folder in folders
        for stem in (DIFFUSERS_STEM, TRANSFORMERS_STEM)
        for name in (files_by_variant(folder, stem, "safetensors") if folder.is_dir() else ())
    }
    if variant not in there:
        named = sorted(name for name in there if name is not None)
        raise InputError(
            f"{where} has no weights of variant {variant!r}{nearest(variant, named)}; the variants there: "
            f"{', '.join(named) or 'none'}."
        )
    for stage in stages:
        stage.variant = variant


def _lend_image_encoder(stages: list[ComponentStage]) -> None:
    """Kandinsky's decoder is guided away from the embedding of an empty picture, which the prior's encoder makes."""
    named = {stage.name: stage for stage in stages}
    prior, decoder = named.get("prior"), named.get("decoder")
    role = "image_encoder"
    if prior is None or decoder is None or role in decoder.index or role not in prior.index:
        return
    if role in stage_entry("decoder", decoder.player).takes:
        decoder.index[role], decoder.paths[role] = prior.index[role], prior.path_of(role)


def _lend_image_weights(stages: list[ComponentStage]) -> None:
    """Frame interpolation that was trained on the decoder's image weights need not hold them a second time."""
    named = {stage.name: stage for stage in stages}
    interpolation, decoder = named.get("interpolation"), named.get("decoder")
    if interpolation is not None and decoder is not None and interpolation.folder is None:
        interpolation.paths["unet"] = decoder.path_of("unet")


def check_fit(stages: list[ComponentStage], where: str, assembled: Collection[str] = ()) -> None:
    """Raise ``InputError`` where one stage's embeddings or frames have another size than the next one's input.

    ``assembled``: names of stages of ours that are made of single components.
    """
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
    if decoder is not None and enlarger is not None and enlarger.folder is None and enlarger.name not in assembled:
        made, taken = decoder.frame_size(), enlarger.low_size()
        if made is not None and taken is not None and made != taken:
            raise InputError(
                f"{where}: the decoder makes frames of {made} px, super_resolution was trained on {taken} px; "
                "leave one of them out or take both from one family."
            )
