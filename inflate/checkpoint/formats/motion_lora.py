"""MotionLoRA (AnimateDiff v2's camera motions): low-rank changes added into a motion module's weights."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inflate.checkpoint.formats.layouts import ANIMATEDIFF, MOTION_ADAPTER
from inflate.errors import InputError

# AnimateDiff: ...attention_blocks.0.processor.to_q_lora.down.weight; diffusers: ...attn1.to_q.lora_A.weight, and what
# its converter writes, ...attn1.processor.to_q_lora.down.weight; each perhaps behind "unet.".
_TAIL = re.compile(
    r"^(?P<attention>.+?)\.(?:processor\.)?(?P<projection>to_q|to_k|to_v|to_out)(?:\.0)?(?:_lora|\.lora)?[._]"
    r"(?P<half>down|up|lora_A|lora_B|A|B)(?:\.\w+)?\.weight$"
)
_DOWN = ("down", "lora_A", "A")


def lora_pairs(keys: Mapping[str, tuple[int, ...]] | list[str]) -> dict[str, dict[str, str]]:
    """Our name of each weight that a MotionLoRA changes -> its keys "down" and "up"; empty for anything else."""
    pairs: dict[str, dict[str, str]] = {}
    for key in keys:
        found = _TAIL.match(key.removeprefix("unet."))
        if found is None:
            continue
        projection = found["projection"] + (".0" if found["projection"] == "to_out" else "")
        whole = f"{found['attention']}.{projection}.weight"
        for layout in (ANIMATEDIFF, MOTION_ADAPTER):
            for name in layout.to_ours(whole):
                pairs.setdefault(name, {})["down" if found["half"] in _DOWN else "up"] = key
    return {name: halves for name, halves in pairs.items() if len(halves) == 2}


def add_lora(tensors: Mapping[str, Tensor], path: Path, scale: float, allow_pickle: bool = False) -> dict[str, Tensor]:
    """A motion module's tensors with ``scale * alpha / rank * up @ down`` added to what a MotionLoRA changes.

    Raises:
        InputError: no MotionLoRA, or one for another motion module.
    """
    from inflate.checkpoint.formats.identify import describe
    from inflate.checkpoint.formats.motion import read_tensors

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
    result = dict(tensors)
    for name, halves in pairs.items():
        if name not in result:
            raise InputError(
                f"{path} changes {name!r}, which this motion module does not have; MotionLoRAs go with v2 modules, "
                "those with a module in the mid block"
            )
        down, up = (stored[halves[half]].float().flatten(1) for half in ("down", "up"))
        if (up.shape[0], down.shape[1]) != tuple(result[name].shape):
            raise InputError(
                f"{path} changes {name!r} of shape {(up.shape[0], down.shape[1])}, and this motion module's has "
                f"{tuple(result[name].shape)}; it was made for another image model"
            )
        alpha = stored.get(re.sub(r"(_lora|\.lora)?[._](down|lora_A)(\.\w+)?\.weight$", ".alpha", halves["down"]))
        share = scale if alpha is None else scale * float(alpha) / down.shape[0]
        result[name] = (result[name].float() + share * torch.mm(up, down)).to(result[name].dtype)
    return result
