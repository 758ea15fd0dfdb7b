"""LoRA on the spatial layers of an image model (a domain adapter), and MotionLoRA on an imported motion module.

A domain adapter (AnimateDiff, arXiv:2307.04725, section 4.1) learns what the clips look like (a watermark, a codec, a
style) on the spatial layers, so that the temporal layers need not; it is saved by itself and left out when videos are
made. MotionLoRA (section 4.3) learns one motion on top of a motion module that stays as it is.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inflate.checkpoint.formats.layouts import MOTION_ADAPTER
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.layers import MotionModule

DOMAIN, MOTION = "domain", "motion"
# Projections of attention by the names that UNets and transformers of diffusers give them.
SPATIAL_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
MOTION_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
LORA_FILE = "pytorch_lora_weights.safetensors"


def add_domain_adapter(image_model: nn.Module, rank: int, alpha: float = 0.0) -> None:
    """Put a LoRA of ``rank`` on the attention projections of ``image_model``, in place; it starts as the identity.

    ``alpha`` 0 is the rank: a factor of 1.
    """
    _inject(image_model, rank, alpha, DOMAIN, SPATIAL_TARGETS)


def add_motion_lora(video_model: InflatedModel, rank: int, alpha: float = 0.0) -> None:
    """Put a LoRA on the attention projections of the motion modules; their own weights stop training.

    Raises:
        InputError: the scheme has no motion modules.
    """
    if not video_model.scheme.has(MotionModule):
        raise InputError(
            f"options.motion_lora_rank is for motion modules, and scheme {video_model.scheme.name!r} has none; choose "
            "an animatediff scheme, with the motion module to start from as options.init"
        )
    _inject(video_model.temporal, rank, alpha, MOTION, MOTION_TARGETS)


def save_domain_adapter(image_model: nn.Module, folder: Path, prefix: str) -> Path:
    """Write the domain adapter as diffusers' ``load_lora_weights`` reads it; ``prefix`` is ``unet`` or ``transformer``.

    The factor alpha / rank is multiplied into the weights, so that no reader can miss it.
    """
    tensors = {f"{prefix}.{name}": value for name, value in _lora_tensors(image_model, DOMAIN).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / LORA_FILE, metadata={"format": "pt"})
    return folder / LORA_FILE


def save_motion_lora(video_model: InflatedModel, path: Path) -> Path:
    """Write the MotionLoRA by diffusers' names of the motion modules (``add_lora`` and AnimateDiff's tools read it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"unet.{MOTION_ADAPTER.from_ours(name)}": t for name, t in _lora_tensors(video_model.temporal, MOTION).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def merged_temporal_state(video_model: InflatedModel) -> dict[str, Tensor]:
    """The temporal weights by their plain names, with a MotionLoRA added where there is one."""
    from peft.tuners.lora import LoraLayer

    state: dict[str, Tensor] = {}
    wrapped = {name: one for name, one in video_model.temporal.named_modules() if isinstance(one, LoraLayer)}
    if not wrapped:
        return video_model.temporal_state_dict()
    for name, value in video_model.temporal.state_dict().items():
        owner = next((one for one in wrapped if name.startswith(f"{one}.")), None)
        if owner is None:
            state[name] = value
        elif name.startswith(f"{owner}.base_layer."):
            plain = f"{owner}.{name.removeprefix(f'{owner}.base_layer.')}"
            layer: Any = wrapped[owner]
            state[plain] = value + layer.get_delta_weight(MOTION) if plain.endswith(".weight") else value
    return state


def _inject(module: nn.Module, rank: int, alpha: float, name: str, targets: tuple[str, ...]) -> None:
    if rank < 1:
        raise InputError(f"The rank of a LoRA must be at least 1, got {rank}.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("LoRA needs the package peft; install it with: pip install peft") from error
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=list(targets), lora_dropout=0.0)  # pyright: ignore[reportArgumentType]
    try:
        inject_adapter_in_model(config, module, adapter_name=name)
    except ValueError as error:
        raise InputError(f"No attention projection of this model can take a LoRA ({error}).") from error
    for key, value in module.named_parameters():
        value.requires_grad_(f".{name}." in f".{key}")


def _lora_tensors(module: nn.Module, name: str) -> dict[str, Tensor]:
    from peft.tuners.lora import LoraLayer

    tensors: dict[str, Tensor] = {}
    for key, layer in module.named_modules():
        if isinstance(layer, LoraLayer) and name in layer.lora_A:
            down: Any = layer.lora_A[name]
            up: Any = layer.lora_B[name]
            tensors[f"{key}.lora_A.weight"] = _on_cpu(down.weight)
            tensors[f"{key}.lora_B.weight"] = _on_cpu(up.weight * layer.scaling[name])
    return tensors


def _on_cpu(value: Tensor) -> Tensor:
    with torch.no_grad():
        return value.detach().float().cpu().contiguous()
