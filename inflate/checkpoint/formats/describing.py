"""What weights are by their names and shapes, in words."""

import re
from collections.abc import Mapping

from inflate.checkpoint.formats.layouts import ANIMATEDIFF, MOTION_ADAPTER

Shapes = Mapping[str, tuple[int, ...]]

OTHER_ADAPTERS = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_": "LoHa", "lokr_": "LoKr"}
"""Parts of keys that tell changes which are no plain LoRA, and are not added here."""

# AnimateDiff: ...attention_blocks.0.processor.to_q_lora.down.weight; diffusers: ...attn1.to_q.lora_A.weight, and what
# its converter writes, ...attn1.processor.to_q_lora.down.weight; each perhaps behind "unet.", PEFT's own behind
# "base_model.model.".
_TAIL = re.compile(
    r"^(?P<attention>.+?)\.(?:processor\.)?(?P<projection>to_q|to_k|to_v|to_out)(?:\.0)?(?:_lora|\.lora)?[._]"
    r"(?P<half>down|up|lora_A|lora_B|A|B)(?:\.\w+)?\.weight$"
)
_DOWN = ("down", "lora_A", "A")
NETWORK_PREFIX = re.compile(r"^(base_model\.model\.|unet\.)+")
# kohya joins the names of modules by "_": lora_unet_down_blocks_0_motion_modules_0_..._attn1_to_q.lora_down.weight.
_JOINED = re.compile(
    r"^lora_unet_(?:(?P<side>down|up)_blocks_(?P<block>\d+)|mid_block)_motion_modules_(?P<module>\d+)_"
    r"(?P<wrapped>temporal_transformer_)?transformer_blocks_(?P<layer>\d+)_"
    r"(?:attention_blocks_(?P<theirs>\d+)|(?P<ours>attn\d+))_(?:processor_)?(?P<projection>to_[qkv]|to_out_0)$"
)


def kind_of(shapes: Shapes) -> str:
    """What tensors of these names and shapes are, in a word or two."""
    keys = list(shapes)

    def has(*parts: str) -> bool:
        return any(part in key for key in keys for part in parts)

    if lora_pairs(keys):
        return "MotionLoRA"
    if has("controlnet_cond_embedding") and has("temporal_transformer", "motion_modules"):
        return "SparseCtrl"
    other = next((kind for mark, kind in OTHER_ADAPTERS.items() if has(mark)), None)
    if other is not None:
        return other
    rules = (
        (("controlnet_cond_embedding", "input_hint_block", "zero_convs"), "ControlNet"),
        (("lora_A", "lora_down", "lora.down", "_lora."), "LoRA for pictures"),
        (("to_k_ip", "image_proj.", "ip_adapter."), "IP-Adapter"),
        (("double_blocks.", "single_transformer_blocks."), "image transformer (FLUX)"),
        (("joint_blocks.",), "image transformer (Stable Diffusion 3)"),
        (("model.diffusion_model.", "input_blocks.", "down_blocks.0.resnets"), "image model"),
        (("first_stage_model.", "decoder.up_blocks", "decoder.up."), "autoencoder"),
        (("text_model.",), "text encoder"),
        (("transformer_blocks.",), "transformer"),
    )
    return next((kind for parts, kind in rules if has(*parts)), "unknown weights")


def describe(shapes: Shapes) -> str:
    """What it seems to be and what to do with it, as the end of a sentence."""
    kind = kind_of(shapes)
    advice = {
        "MotionLoRA": "give it with --lora, beside the motion module it was made for",
        "LoRA for pictures": "load it into the image model with load_lora_weights (AnimateDiff v3's adapter is one)",
        "image model": "name it as the image model",
        "ControlNet": "load it beside the image model",
        "SparseCtrl": "it is a ControlNet with motion modules of its own; diffusers' SparseControlNetModel loads it",
        "IP-Adapter": "load it into the image model with load_ip_adapter",
        **dict.fromkeys(OTHER_ADAPTERS.values(), "it is not taken here; merge it into the image model"),
    }.get(kind, "name a file of AnimateDiff, Hotshot-XL or a MotionAdapter")
    first = next(iter(shapes), "nothing")
    return f"it seems to be {kind} ({len(shapes)} tensors, the first {first!r}); {advice}"


def lora_pairs(keys: Mapping[str, tuple[int, ...]] | list[str]) -> dict[str, dict[str, str]]:
    """Our name of each weight that a MotionLoRA changes -> its keys "down" and "up"; empty for anything else."""
    pairs: dict[str, dict[str, str]] = {}
    for key in keys:
        found = _TAIL.match(_dotted(key))
        if found is None:
            continue
        projection = found["projection"] + (".0" if found["projection"] == "to_out" else "")
        whole = f"{found['attention']}.{projection}.weight"
        for layout in (ANIMATEDIFF, MOTION_ADAPTER):
            for name in layout.to_ours(whole):
                pairs.setdefault(name, {})["down" if found["half"] in _DOWN else "up"] = key
    return {name: halves for name, halves in pairs.items() if len(halves) == 2}


def _dotted(key: str) -> str:
    """A key without what stands before a network's names, its modules joined by dots."""
    stem, dot, rest = key.partition(".")
    joined = _JOINED.match(stem)
    if joined is None:
        return NETWORK_PREFIX.sub("", key)
    block = f"{joined['side']}_blocks.{joined['block']}" if joined["side"] else "mid_block"
    wrapped = "temporal_transformer." if joined["wrapped"] else ""
    attention = joined["ours"] or f"attention_blocks.{joined['theirs']}"
    projection = joined["projection"].replace("to_out_0", "to_out.0")
    layer = f"transformer_blocks.{joined['layer']}.{attention}.{projection}"
    return f"{block}.motion_modules.{joined['module']}.{wrapped}{layer}{dot}{rest}"
