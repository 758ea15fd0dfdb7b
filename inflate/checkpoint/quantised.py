"""Quantised weights of single files: 8-bit floats with scales are multiplied out, what is packed is refused by name."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from inflate.errors import InputError

# How names end beside weights that are packed into bytes -> who packs so.
_PACKED = {
    ".quant_state.bitsandbytes__nf4": "bitsandbytes (nf4)",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes (fp4)",
    ".absmax": "bitsandbytes (4 bits)",
    ".SCB": "bitsandbytes (8 bits)",
    ".qweight": "GPTQ, AWQ or SVDQuant",
    ".weight_packed": "compressed-tensors",
    ".weight_scale_2": "NVFP4",
}
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = ("scale_weight", "weight_scale")  # of ComfyUI's older files, and of newer ones
# What is beside them: the scale of a layer's input, which a network of wider numbers does without, and notes.
_BESIDE = ("scale_input", "input_scale", "comfy_quant")
_NOTE = "scaled_fp8"


def refuse_packed(path: Path, names: Iterable[str]) -> None:
    """Raise ``InputError`` for weights that are packed into bytes."""
    held = list(names)
    for ending, packer in _PACKED.items():
        name = next((name for name in held if name.endswith(ending)), None)
        if name is not None:
            raise InputError(
                f"{path} is quantised by {packer}, as {name!r} shows, and packed weights cannot be inflated; get the "
                "model in 16 bits, or in 8-bit floats"
            )


def plain_weights(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without their scales: 8-bit floats times their scale are bfloat16, everything else stays as it is.

    Raises:
        InputError: a scale that is not one number for a weight, or one for each of its rows.
    """
    scales = {stem: one for name, one in tensors.items() if (stem := _layer(name, _SCALES))}
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _layer(name, (*_SCALES, *_BESIDE)) or name.rpartition(".")[2] == _NOTE:
            continue
        scale = scales.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if scale is None:
            plain[name] = tensor
        elif tensor.dtype not in _FLOAT8 or scale.numel() not in (1, tensor.shape[0]):
            raise InputError(
                f"{path} is quantised in a way that inflate does not know: {name!r} is {tensor.dtype} with a scale of "
                f"shape {tuple(scale.shape)}; get the model in 16 bits, or in 8-bit floats"
            )
        else:
            rows = scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
            plain[name] = (tensor.float() * rows).to(torch.bfloat16)
    return plain


def _layer(name: str, endings: tuple[str, ...]) -> str:
    """The layer that a name of such an ending belongs to, or nothing."""
    stem, _, last = name.rpartition(".")
    return stem if last in endings else ""
