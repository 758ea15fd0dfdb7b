"""MotionLoRA (AnimateDiff v2's camera motions): low-rank changes added into a motion module's weights."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.checkpoint.formats.describing import NETWORK_PREFIX, describe, lora_pairs
from inflate.checkpoint.formats.motion import read_tensors
from inflate.checkpoint.header import read_header
from inflate.checkpoint.narrowing import holds
from inflate.errors import InputError

_ADAPTER, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's own folder
_DIFFUSERS = "pytorch_lora_weights.safetensors"


def lora_file(path: Path) -> Path:
    """The file of a LoRA: ``path``, or what a folder of PEFT's or diffusers' has.

    Raises:
        InputError: a folder without one, or with several.
    """
    if not path.is_dir():
        return path
    for name in (_ADAPTER, _DIFFUSERS):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin")) or sorted(path.rglob("*.safetensors"))
    if len(found) != 1:
        held = ", ".join(str(one.relative_to(path)) for one in found[:3]) or "no .safetensors"
        raise InputError(f"{path} is a folder with {held}, and no {_ADAPTER}; name the LoRA's file.")
    return found[0]


def add_lora(tensors: Mapping[str, Tensor], path: Path, scale: float, allow_pickle: bool = False) -> dict[str, Tensor]:
    """A motion module's tensors with ``scale * alpha / rank * up @ down`` added to what a MotionLoRA changes.

    ``alpha`` is a tensor beside the two, as kohya has it, or in the metadata, as PEFT and diffusers have it (by layer
    too, and with rank-stabilised scaling); without either, alpha is the rank.

    Raises:
        InputError: no MotionLoRA, or one for another motion module, or more of it than the module's dtype can hold.
    """
    path = lora_file(path)
    stored, pairs = _pairs_in(path, allow_pickle)
    _check_pairs(path, stored, pairs, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    result, config = dict(tensors), adapter_config(path)
    for name, halves in pairs.items():
        down, up = (stored[halves[half]].float().flatten(1) for half in ("down", "up"))
        share = scale * _strength(stored, config, halves["down"], down.shape[0])
        weight = result[name]
        added = weight.float() + share * torch.mm(up, down).to(weight.device)
        if not holds(weight.dtype, added):
            raise InputError(
                f"{path} makes numbers of {name!r} larger than {weight.dtype} can hold, at scale {scale:g}; take a "
                "smaller one"
            )
        result[name] = added.to(weight.dtype)
    return result


def check_lora(shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise ``InputError`` as :func:`add_lora` does, for a motion module whose tensors have these shapes."""
    _check_pairs(path, *_pairs_in(path, False), shapes)


def _pairs_in(path: Path, allow_pickle: bool) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """A MotionLoRA's tensors by its own keys, and its pairs of halves."""
    stored = read_tensors(path, allow_pickle)
    pairs = lora_pairs(list(stored))
    if not pairs:
        what = describe({key: tuple(one.shape) for key, one in stored.items()})
        raise InputError(f"{path} is no MotionLoRA: {what}")
    used = {key for halves in pairs.values() for key in halves.values()}
    left = [key for key in stored if key not in used and not key.endswith("alpha")]
    if left:
        raise InputError(
            f"{path} has {len(left)} tensors that are no whole change to a motion module, the first {left[0]!r}; "
            "take them out, or get the file again"
        )
    return stored, pairs


def _check_pairs(
    path: Path,
    stored: Mapping[str, Tensor],
    pairs: Mapping[str, Mapping[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    for name, halves in pairs.items():
        if name not in shapes:
            raise InputError(
                f"{path} changes {name!r}, which this motion module does not have; MotionLoRAs go with v2 modules, "
                "those with a module in the mid block"
            )
        changed = (stored[halves["up"]].shape[0], stored[halves["down"]].flatten(1).shape[1])
        if changed != shapes[name]:
            raise InputError(
                f"{path} changes {name!r} of shape {changed}, and this motion module's has {shapes[name]}; it was made "
                "for another image model"
            )


def adapter_config(path: Path, whole: bool = False) -> dict[str, Any]:
    """PEFT's configuration: in a LoRA's metadata, where diffusers keeps it, or beside its file; empty where neither is.

    ``whole`` keeps what a pipeline's own save puts before each key, the network's name.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    said, beside = read_header(path).metadata.get("lora_adapter_metadata"), path.with_name(_ADAPTER_CONFIG)
    where = path
    if (
        said is None
        and beside.is_file()
        and (path.name == _ADAPTER or len(list(path.parent.glob("*.safetensors"))) == 1)
    ):
        where, said = beside, beside.read_text(encoding="utf-8", errors="replace")
    try:
        config = json.loads(said or "{}")
    except ValueError as error:
        raise InputError(f"{where} has settings of a LoRA that cannot be read ({error}); get the LoRA again") from error
    config = config if isinstance(config, dict) else {}
    # A pipeline's own save puts the network's name before each key.
    return config if whole else {NETWORK_PREFIX.sub("", key): value for key, value in config.items()}


def _strength(stored: Mapping[str, Tensor], config: Mapping[str, Any], key: str, rank: int) -> float:
    """Alpha over the rank of the change whose first half is ``key``."""
    alpha = stored.get(re.sub(r"(_lora|\.lora)?[._](down|lora_A)(\.\w+)?\.weight$", ".alpha", key))
    if alpha is not None:
        return float(alpha) / rank
    layer = re.sub(r"\.(lora_A|lora\.down)(\.\w+)?\.weight$", "", NETWORK_PREFIX.sub("", key))
    return configured_strength(config, layer, rank)


def configured_strength(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Alpha over the rank, or over its root, as PEFT's configuration has it for a layer; 1 where it says nothing."""
    if "lora_alpha" not in config:
        return 1.0
    patterns = config.get("alpha_pattern") or {}
    own = next((value for name, value in patterns.items() if re.match(rf"(.*\.)?({name})$", layer)), None)
    value = float(config["lora_alpha"] if own is None else own)
    return value / math.sqrt(rank) if config.get("use_rslora") else value / rank
