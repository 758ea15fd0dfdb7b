"""Writing the cascade of a role file as one folder of half-precision weights."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from inflate.cascade.folder import write_folder
from inflate.cascade.role_file import read_role_file
from inflate.cascade.roles import stages_of_roles
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.narrowing import narrowed
from inflate.checkpoint.temporal import read_temporal_info, write_temporal
from inflate.errors import InputError
from inflate.staging import new_file


def assemble(path: Path, destination: Path, force: bool = False) -> dict[str, int]:
    """Copy what a role file names into one cascade's folder; returns the bytes of weights per component.

    Raises:
        InputError: as :func:`read_role_file`; the parts do not fit into one folder; ``destination`` cannot be written,
            or exists and ``force`` is not set.
    """
    file = read_role_file(path)
    stages: Any = stages_of_roles(file, str(path))
    sizes: dict[str, int] = {}

    def change(partial: Path) -> None:
        for weights in sorted(partial.rglob("*.safetensors")) if file.half else ():
            _halve(weights)
        if file.card is not None:
            shutil.copy(file.card, partial / "README.md")
        for stage in stages:
            for role in stage.index:
                folder = partial / stage.folders.get(role, role)
                sizes[role] = sum(one.stat().st_size for one in folder.rglob("*.safetensors"))

    try:
        write_folder(destination, stages, file.name, None, force, change)
    except OSError as error:
        raise InputError(f"{destination} cannot be written ({error.strerror or error}).") from error
    return sizes


def _halve(path: Path) -> None:
    """Rewrite a file with wide weights as float16, keeping its metadata; what is in half precision already stays."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if not any(file.get_slice(name).get_dtype() in ("F32", "F64") for name in names):
            return
        tensors = narrowed({name: file.get_tensor(name) for name in names}, torch.float16)
        metadata = file.metadata()
    with new_file(path, overwrite=True) as narrow:
        if path.name == TEMPORAL_FILE:
            write_temporal(narrow, tensors, read_temporal_info(path)[0])
        else:
            save_file(tensors, narrow, metadata=metadata)
