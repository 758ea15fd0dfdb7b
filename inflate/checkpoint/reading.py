"""The weights of an image model from any source, under the names that diffusers gives them."""

from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import no_init_weights
from safetensors import safe_open
from torch import Tensor

from inflate.building import alone
from inflate.checkpoint.header import is_pickle
from inflate.checkpoint.pickled import read_pickle
from inflate.checkpoint.source import Source, Weights, check_weights, current_name, find_weights, shapes_of


@alone
def load_image_model(
    source: Source, device: "str | torch.device | None" = None, dtype: torch.dtype | None = None
) -> Any:
    """The image model of `source` in eval mode, its files checked first; float32 on the CPU by default."""
    weights = find_weights(source)
    shapes = shapes_of(source.meta_model())
    check_weights(source, weights, shapes)
    if weights.renamed is None:
        image_model = source.image_model_class.from_pretrained(
            source.folder,
            torch_dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=True,
            variant=weights.variant,
        )
        return image_model.to(device or "cpu").eval()
    with no_init_weights():  # every weight is in the file
        image_model = source.image_model_class.from_config(source.config)
    image_model.load_state_dict(read_tensors(source, weights, shapes), assign=True)
    # diffusers' own `to` warns of a list that is empty here
    torch.nn.Module.to(image_model, dtype=dtype or torch.float32)
    return image_model.to(device or "cpu").eval()


def read_tensors(source: Source, weights: Weights, expected: Container[str]) -> dict[str, Tensor]:
    """All weights, checked before, in the dtypes of the files; on the CPU, mapped where possible.

    `expected` are the names that the image model has now.
    """
    tensors: dict[str, Tensor] = {}
    for path in weights.paths:
        tensors |= read_pickle(path) if is_pickle(path) else _read_safetensors(source, path)
    if source.single_file is not None:
        return source.single_file.to_diffusers(tensors, source.config)
    return {current_name(name, expected): tensor for name, tensor in tensors.items()}


def _read_safetensors(source: Source, path: Path) -> dict[str, Tensor]:
    """The image model's tensors of a file; those of text encoders in it are left alone."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if source.single_file is not None:
            names = source.single_file.own(names)
        return {name: file.get_tensor(name) for name in names}
