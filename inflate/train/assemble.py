"""Putting trained parts together as one family: a cascade's folder of half-precision weights."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from inflate.checkpoint import what_it_is
from inflate.checkpoint.writing import finish_folder
from inflate.errors import InputError, nearest
from inflate.schedulers import SCHEDULERS
from inflate.stages import STAGES, StageSettings, stage_class, stages_of
from inflate.staging import staged
from inflate.train.recipe import parse_table

_FOLDERS = {"text_encoder": "clip"}  # role -> its folder, where the two names differ


@dataclass(frozen=True)
class Family:
    """A family file: ``roles`` name one folder per component, ``stage_defaults`` each stage's sampling settings.

    ``stage_configs`` say what a stage must know beside its networks; where the folder of one of its roles has a
    ``stage_config.json`` beside it, as training writes it, those values hold unless the family file names others.

    ``card`` is copied as the folder's README.md; ``half`` writes float16 weights.
    """

    name: str
    roles: dict[str, str]
    stage_defaults: dict[str, Any] = field(default_factory=dict)
    stage_configs: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    half: bool = True


def load_family(path: Path) -> Family:
    """Read a family file (TOML), as strictly as a recipe."""
    import tomllib

    if not path.exists():
        raise InputError(f"There is no family file at {path}.")
    if path.is_dir() or path.suffix.lower() != ".toml":
        raise InputError(f"{path} is {what_it_is(path)}, and a family file (.toml) is wanted here.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML ({error}); mend that line.") from error
    if any(isinstance(table.get(stage), dict) and "from" in table[stage] for stage in STAGES):
        raise InputError(
            f"{path} is a role file, which goes wherever a model does (--model {path}) and needs no assembling; a "
            "family file has a table [roles]."
        )
    return parse_table(Family, table, str(path))


def assemble(family: Family, destination: Path, force: bool = False) -> dict[str, int]:
    """Copy the named parts into ``destination`` with a ``model_index.json``; returns the bytes of weights per role.

    Raises:
        InputError: a role no stage knows, a part that is missing, or ``destination`` exists and ``force`` is not set.
    """
    from inflate import __version__

    _check_new(destination, force)
    known = [role for entry in STAGES.values() for role in (*entry.needs, *entry.takes)]
    for role, folder in family.roles.items():
        if role not in known:
            raise InputError(f"No stage has a role {role!r}{nearest(role, known)}; the roles are {', '.join(known)}.")
        if not Path(folder).is_dir():
            raise InputError(f"The role {role!r} names {folder}, which is no folder; train it first.")
    components = {role: _library_and_class(role, Path(folder)) for role, folder in family.roles.items()}
    stages = stages_of(components, "the family file")
    defaults = {name: vars(_stage_defaults(name, family)) for name in stages}
    configs = {name: config for name in stages if (config := _stage_config(name, family))}
    index: dict[str, Any] = {"_class_name": "Cascade", "_inflate_version": __version__, "family": family.name}
    index |= {role: list(entry) for role, entry in components.items()} | {"stage_defaults": defaults}
    index["stage_configs"] = configs
    sizes = {}
    try:
        with staged(destination) as partial:
            _check_new(destination, force)
            for role, folder in family.roles.items():
                sizes[role] = _copy_part(Path(folder), partial / _FOLDERS.get(role, role), family.half)
            if family.card:
                shutil.copy(family.card, partial / "README.md")
            (partial / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            finish_folder(partial, destination)
    except OSError as error:
        raise InputError(f"{destination} cannot be written ({error.strerror or error}).") from error
    return sizes


def _check_new(destination: Path, force: bool) -> None:
    if destination.exists() and not force:
        raise InputError(f"{destination} exists; name another folder or add --force.")


def _stage_defaults(stage: str, family: Family) -> StageSettings:
    """What the family file says; steps that it leaves out are those that the scheduler's config has."""
    values: dict[str, Any] = dict(family.stage_defaults.get(stage) or vars(stage_class(stage).defaults))
    if "num_inference_steps" not in family.stage_defaults.get(stage, {}):
        for role in STAGES[stage].needs:
            path = Path(family.roles[role]) / "scheduler_config.json"
            config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            values |= {"num_inference_steps": config["num_inference_steps"]} if "num_inference_steps" in config else {}
    return parse_table(StageSettings, values, stage)


def _stage_config(stage: str, family: Family) -> dict[str, Any]:
    """What training wrote beside the networks of a stage, changed by the family file; checked against its class."""
    values: dict[str, Any] = {}
    for role in STAGES[stage].needs:
        beside = Path(family.roles[role]).parent / "stage_config.json"
        if beside.is_file():
            values |= json.loads(beside.read_text(encoding="utf-8"))
    values |= family.stage_configs.get(stage, {})
    return vars(parse_table(stage_class(stage).config_class, values, f"stage_configs.{stage}")) if values else {}


def _library_and_class(role: str, folder: Path) -> tuple[str, str]:
    names = [name for name in ("config.json", "scheduler_config.json") if (folder / name).is_file()]
    if not names:
        raise InputError(f"{folder} has no config.json; the role {role!r} needs a diffusers or open_clip folder.")
    if role == "interpolation_unet":  # an inflated model, perhaps without the image weights that the family's unet has
        return "inflate", "InflatedModel"
    config = json.loads((folder / names[0]).read_text(encoding="utf-8"))
    if "model_cfg" in config:
        return "open_clip", "CLIP"
    if "_class_name" not in config:
        raise InputError(f"{folder / names[0]} does not name its class (_class_name); it is no diffusers folder.")
    return "inflate" if config["_class_name"] in SCHEDULERS else "diffusers", config["_class_name"]


def _copy_part(source: Path, target: Path, half: bool) -> int:
    target.mkdir(parents=True)
    size = 0
    for path in sorted(source.iterdir()):
        if path.suffix == ".safetensors":
            _copy_weights(path, target / path.name, half)
            size += (target / path.name).stat().st_size
        elif path.is_file():
            shutil.copy(path, target / path.name)
    return size


def _copy_weights(source: Path, target: Path, half: bool) -> None:
    """Copy byte for byte what is in half precision already; convert the rest, keeping the header's metadata."""
    with safe_open(source, framework="pt") as file:
        names = list(file.keys())
        wide = half and any(file.get_slice(name).get_dtype() in ("F32", "F64") for name in names)
        if not wide:
            shutil.copy(source, target)
            return
        tensors = {}
        for name in names:
            value = file.get_tensor(name)
            tensors[name] = value.to(torch.float16).contiguous() if value.is_floating_point() else value
        metadata = file.metadata()
    save_file(tensors, target, metadata=metadata)
