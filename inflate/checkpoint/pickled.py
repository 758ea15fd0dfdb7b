"""Weights in pickles (`.ckpt`, `.bin`, `.pt`), for those who ask for it: tensors are read, and nothing is run."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from inflate.components import refuse_stand_in
from inflate.errors import InputError


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict on the CPU, mapped from the file where its format allows.

    A training checkpoint's `state_dict` is opened; what else is beside it (the step, the optimiser) is left out.

    Raises:
        InputError: damaged, no state dict, or a pickle of anything but tensors and plain values; none of that is run.
    """
    if path.is_file():
        refuse_stand_in(path)
    try:
        # only torch's zip format, the default since 1.6, can be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # a damaged pickle may raise anything
        if "unsupported" in str(error).lower():  # a class, a function or an operation other than those of tensors
            raise InputError(
                f"{path} is refused: it is a pickle of more than tensors, which could run code, and nothing of it was "
                "run; get the model as safetensors"
            ) from error
        raise InputError(
            f"{path} cannot be read as a file of torch tensors: it is damaged or something else"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = (
        {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise InputError(f"{path} holds no weights: it is no state dict of torch tensors")
    return tensors
