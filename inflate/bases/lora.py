"""LoRAs of image models and their text encoders, in the layouts that trainers write, merged into the weights.

``W + weight * alpha / rank * up @ down`` (arXiv:2106.09685, section 4.1), as diffusers' ``fuse_lora`` has it. Names
that are not those of modules (SDXL's and FLUX's of kohya, XLabs', …) go through diffusers' own conversion.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inflate.checkpoint.formats.describing import OTHER_ADAPTERS, lora_pairs
from inflate.checkpoint.formats.motion_lora import adapter_config, configured_strength
from inflate.checkpoint.header import is_pickle, read_header, refuse_pickle
from inflate.errors import InputError, a

NETWORK = "network"
# Prefixes of keys -> what they change; kohya's have underscores for dots after them.
_PREFIXES = {
    "unet.": NETWORK,
    "transformer.": NETWORK,
    "base_model.model.": NETWORK,
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
}
_KOHYA = {
    "lora_unet_": NETWORK,
    "lora_transformer_": NETWORK,
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_HALF = re.compile(r"^(.+?)(?:\.lora|_lora)?[._](?:lora_)?(down|up|A|B)(?:\.\w+)?\.weight$")


@dataclass(frozen=True)
class LayerChange:
    """What a LoRA adds to the weight of one layer, ``share * up @ down``; both halves (rank, …) and (…, rank)."""

    down: Tensor
    up: Tensor
    share: float


@dataclass(frozen=True)
class ImageLora:
    """A LoRA that fits: changes by what is changed (``NETWORK``, ``text_encoder``, …) and by its layer's name."""

    path: Path
    changes: Mapping[str, Mapping[str, LayerChange]]

    def merge_into(self, module: nn.Module, part: str, weight: float) -> None:
        """Add what it changes of ``part``, ``weight`` times, to the weights of ``module``, which is that part."""
        layers = dict(module.named_modules())
        for name, change in self.changes.get(part, {}).items():
            target: Any = layers[name]
            up, down = (half.to(target.weight.device, torch.float32).flatten(1) for half in (change.up, change.down))
            added = weight * change.share * (up @ down).reshape(target.weight.shape)
            with torch.no_grad():
                target.weight.copy_(target.weight.float() + added)


def is_motion_lora(path: Path) -> bool:
    """Whether a LoRA file changes a motion module rather than an image model; told by its names alone.

    Raises:
        InputError: no such file, a pickle, or no safetensors.
    """
    if not path.is_file():
        raise InputError(f"There is no LoRA {path}; name a .safetensors file.")
    if is_pickle(path):
        refuse_pickle(path)
    return bool(lora_pairs(list(read_header(path).tensors)))


def read_image_lora(path: Path, parts: Mapping[str, nn.Module], pipeline: str = "") -> ImageLora:
    """Read a LoRA of diffusers, PEFT or kohya for a network and its text encoders.

    Args:
        path: a .safetensors file; PEFT's ``adapter_config.json`` beside it is read.
        parts: ``NETWORK`` and the text encoders that there are, on any device, the meta device too.
        pipeline: name of diffusers' pipeline whose LoRA loader knows further layouts, if there is one.

    Raises:
        InputError: no LoRA, one of another kind, or one that changes what is not there or has another size.
    """
    stored = load_file(path)
    for mark, kind in OTHER_ADAPTERS.items():
        if any(mark in key for key in stored):
            raise InputError(f"{path} is {a(kind)}, which is not supported; merge it into the model, or train a LoRA.")
    config = adapter_config(path, whole=True)
    try:
        found = _read(path, stored, config, parts)
    except _OtherNamesError:
        converted, alphas = _converted(path, parts[NETWORK], pipeline) if pipeline else ({}, {})
        if not converted:
            raise
        found = _read(path, converted | alphas, config, parts)
    if not found:
        raise InputError(f"{path} is no LoRA: it has {len(stored)} tensors, none of which is half of a change.")
    return ImageLora(path, found)


class _OtherNamesError(InputError):
    """Names that are none of the model's: those of another layout perhaps, which diffusers may know."""


def _config_of(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    names = [prefix for prefix, of in _PREFIXES.items() if of == part]
    for prefix in names:
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        if own:
            return own
    return dict(config) if part == NETWORK and "lora_alpha" in config else {}


def _read(
    path: Path, stored: Mapping[str, Tensor], config: Mapping[str, Any], parts: Mapping[str, nn.Module]
) -> dict[str, dict[str, LayerChange]]:
    """Changes by part and layer.

    Raises:
        InputError: what of the file does not fit; `_OtherNamesError` where it is a name.
    """
    unfit = f"{path} does not fit"
    layers = {part: _Layers(module) for part, module in parts.items()}
    halves: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        if key.endswith("alpha"):
            continue
        matched = _HALF.match(key)
        if matched is None:
            raise _OtherNamesError(
                f"{unfit}: {key!r} is no half of a change; the file may be of another kind, or damaged."
            )
        part, name = _part_of(matched[1])
        if part not in layers:
            what = part.replace("_", " ").replace("encoder 2", "encoder (the second)")
            raise _OtherNamesError(
                f"{unfit}: it changes the {what} ({key!r}), and this model has none that a LoRA can change."
            )
        layer = layers[part].find(name)
        if layer is None:
            where = f"which the {part.replace('_', ' ')} has not"
            raise _OtherNamesError(f"{unfit}: it changes {name!r}, {where}; it was made for another model.")
        half = "down" if matched[2] in ("down", "A") else "up"
        halves.setdefault((part, layer), {})[half] = tensor
        alpha = stored.get(f"{matched[1]}.alpha")
        if alpha is not None:
            halves[part, layer]["alpha"] = alpha
    found: dict[str, dict[str, LayerChange]] = {}
    for (part, layer), found_halves in halves.items():
        if not {"down", "up"} <= found_halves.keys():
            raise InputError(f"{unfit}: half of its change of {layer!r} is missing; get the file again.")
        wrong = _wrong_values(layers[part].modules[layer], found_halves, layer)
        if wrong:
            raise InputError(f"{unfit}: {wrong}")
        rank = found_halves["down"].shape[0]
        alpha = found_halves.get("alpha")
        share = configured_strength(_config_of(config, part), layer, rank) if alpha is None else float(alpha) / rank
        found.setdefault(part, {})[layer] = LayerChange(found_halves["down"], found_halves["up"], share)
    return found


def _wrong_values(layer: nn.Module, halves: Mapping[str, Tensor], name: str) -> str:
    """What of a change is of a wrong size or no numbers, in words; empty if nothing is."""
    weight: Any = getattr(layer, "weight", None)
    made = halves["up"].shape[0], halves["down"].flatten(1).shape[1]
    if halves["up"].flatten(1).shape[1] != halves["down"].shape[0]:
        return f"the halves of its change of {name!r} do not belong together; get the file again."
    own = None if weight is None else (weight.shape[0], weight[0].numel())
    if own != made:
        return f"it changes {name!r} of size {made}, and this model's has {own}; it was made for another model."
    if not all(half.float().isfinite().all() for half in halves.values()):
        return f"its change of {name!r} holds values that are not numbers (NaN, infinity); get the file again."
    return ""


class _Layers:
    """The layers of a part by name, also with underscores for dots, and whatever is before "text_model."."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = dict(module.named_modules())
        self._joined = {name.replace(".", "_"): name for name in self.modules}

    def find(self, name: str) -> str | None:
        # As diffusers saves text encoders' changes, and what it makes of kohya's.
        name = name.removesuffix(".lora_linear_layer")
        name = re.sub(r"\.self_attn\.to_(q|k|v|out)$", r".self_attn.\1_proj", name)
        for tried in (name, name.removeprefix("text_model."), f"text_model.{name}"):
            if tried in self.modules:
                return tried
        for tried in (name, name.removeprefix("text_model_"), f"text_model_{name}"):
            if tried in self._joined:
                return self._joined[tried]
        # Attention processors of old: attn1.processor.to_q_lora.down.weight
        old = re.match(r"^(.+)\.processor\.(to_q|to_k|to_v|to_out)$", name)
        if old is None:
            return None
        projection = old[2] + (".0" if old[2] == "to_out" else "")
        return self.find(f"{old[1]}.{projection}")


def _part_of(name: str) -> tuple[str, str]:
    """What a key without its half changes, and the layer's name as the file has it."""
    for prefix, part in (*_PREFIXES.items(), *_KOHYA.items()):
        if name.startswith(prefix):
            return part, name.removeprefix(prefix)
    return NETWORK, name


def _converted(path: Path, network: Any, pipeline: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The file's tensors and alphas under diffusers' names; empty where diffusers does not know the layout."""
    import diffusers

    loader = getattr(diffusers, pipeline)
    options = {"unet_config": network.config} if hasattr(loader, "unet_name") else {}
    options |= {"return_alphas": True} if pipeline == "FluxPipeline" else {}
    try:
        made = loader.lora_state_dict(
            str(path.parent), weight_name=path.name, local_files_only=True, use_safetensors=True, **options
        )
    except Exception:  # its converters index into names and shapes, and raise any kind of error on others
        return {}, {}
    tensors, alphas = made if isinstance(made, tuple) else (made, None)
    named: dict[str, Tensor] = {}
    for key, alpha in (alphas or {}).items():
        whole = key.removesuffix(".alpha")  # the layer's, or that of the half to which it was a neighbour
        matched = _HALF.match(whole)
        named[f"{matched[1] if matched else whole}.alpha"] = torch.tensor(float(alpha))
    return dict(tensors), named
