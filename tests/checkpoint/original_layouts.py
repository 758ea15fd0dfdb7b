"""diffusers' names backwards: the state dict of a model as the makers of Stable Diffusion, SD3 and FLUX published it.

Written from the layouts themselves, so that what reads them is compared with something else than its own table.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

PREFIX = "model.diffusion_model."
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_unet(state: Mapping[str, Tensor], layers_per_block: int) -> dict[str, Tensor]:
    """As latent diffusion numbers a UNet's blocks: every resnet, with the attention after it, is a block of its own."""
    attended = {name.split(".")[1] for name in state if name.startswith("up_blocks.") and ".attentions." in name}
    renamed = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        renamed[f"{_UNET_ENDS.get(stem) or _ldm_block(stem.split('.'), layers_per_block, attended)}.{kind}"] = tensor
    assert len(renamed) == len(state)
    return renamed


def _ldm_block(parts: list[str], layers_per_block: int, attended: set[str]) -> str:
    if parts[0] == "mid_block":
        number = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return ".".join(["middle_block", str(number), *_inside(parts[1], parts[3:])])
    block, part, layer = int(parts[1]), parts[2], int(parts[3])
    first = block * (layers_per_block + 1)
    if parts[0] == "down_blocks":
        if part == "downsamplers":
            return f"input_blocks.{1 + first + layers_per_block}.0.op"
        place = f"input_blocks.{1 + first + layer}"
    else:
        if part == "upsamplers":
            return f"output_blocks.{first + layers_per_block}.{2 if parts[1] in attended else 1}.conv"
        place = f"output_blocks.{first + layer}"
    return ".".join([place, "1" if part == "attentions" else "0", *_inside(part, parts[4:])])


def _inside(part: str, names: list[str]) -> list[str]:
    return [_RESNET[names[0]]] if part == "resnets" else names


def _swapped(tensor: Tensor) -> Tensor:
    """Scale and shift, which diffusers keeps in the other order."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


def sd3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As SD3's own MMDiT names its weights: one matrix for query, key and value."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    renamed = {"pos_embed": state["pos_embed.pos_embed"]}

    def put(old: str, new: str, swap: bool = False) -> None:
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in state:
                tensor = state[f"{old}.{kind}"]
                renamed[f"{new}.{kind}"] = _swapped(tensor) if swap else tensor

    put("pos_embed.proj", "x_embedder.proj")
    put("context_embedder", "context_embedder")
    for old, new in (("timestep", "t"), ("text", "y")):
        put(f"time_text_embed.{old}_embedder.linear_1", f"{new}_embedder.mlp.0")
        put(f"time_text_embed.{old}_embedder.linear_2", f"{new}_embedder.mlp.2")
    put("proj_out", "final_layer.linear")
    put("norm_out.linear", "final_layer.adaLN_modulation.1", swap=True)
    for i in range(last + 1):
        block = f"transformer_blocks.{i}"
        picture, text = f"joint_blocks.{i}.x_block", f"joint_blocks.{i}.context_block"
        put(f"{block}.norm1_context.linear", f"{text}.adaLN_modulation.1", swap=i == last)
        for old, new in (
            (f"{block}.norm1.linear", f"{picture}.adaLN_modulation.1"),
            (f"{block}.attn.to_out.0", f"{picture}.attn.proj"),
            (f"{block}.attn.to_add_out", f"{text}.attn.proj"),
            (f"{block}.attn2.to_out.0", f"{picture}.attn2.proj"),
            (f"{block}.ff.net.0.proj", f"{picture}.mlp.fc1"),
            (f"{block}.ff.net.2", f"{picture}.mlp.fc2"),
            (f"{block}.ff_context.net.0.proj", f"{text}.mlp.fc1"),
            (f"{block}.ff_context.net.2", f"{text}.mlp.fc2"),
            *((f"{block}.attn.norm_{letter}", f"{picture}.attn.ln_{letter}") for letter in "qk"),
            *((f"{block}.attn.norm_added_{letter}", f"{text}.attn.ln_{letter}") for letter in "qk"),
            *((f"{block}.attn2.norm_{letter}", f"{picture}.attn2.ln_{letter}") for letter in "qk"),
        ):
            put(old, new)
        for stem, names in (
            (f"{picture}.attn", [f"{block}.attn.to_{letter}" for letter in "qkv"]),
            (f"{text}.attn", [f"{block}.attn.add_{letter}_proj" for letter in "qkv"]),
            (f"{picture}.attn2", [f"{block}.attn2.to_{letter}" for letter in "qkv"]),
        ):
            renamed |= {
                f"{stem}.qkv.{kind}": torch.cat([state[f"{name}.{kind}"] for name in names])
                for kind in ("weight", "bias")
                if f"{names[0]}.{kind}" in state
            }
    return renamed


def flux(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As FLUX's own code names its weights: query, key, value and the first layer of the MLP in one matrix."""
    renamed: dict[str, Tensor] = {}

    def put(new: str, *old: str, swap: bool = False) -> None:
        for kind in ("weight", "bias"):
            if f"{old[0]}.{kind}" in state:
                tensor = torch.cat([state[f"{name}.{kind}"] for name in old])
                renamed[f"{new}.{kind}"] = _swapped(tensor) if swap else tensor

    def put_scale(new: str, old: str) -> None:
        renamed[f"{new}.scale"] = state[f"{old}.weight"]

    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    for new, old in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance")):
        put(f"{new}_in.in_layer", f"time_text_embed.{old}_embedder.linear_1")
        put(f"{new}_in.out_layer", f"time_text_embed.{old}_embedder.linear_2")
    put("final_layer.linear", "proj_out")
    put("final_layer.adaLN_modulation.1", "norm_out.linear", swap=True)
    blocks = {tuple(name.split(".")[:2]) for name in state if "transformer_blocks." in name}
    for kind, number in blocks:
        old = f"{kind}.{number}"
        if kind == "single_transformer_blocks":
            new = f"single_blocks.{number}"
            put(f"{new}.modulation.lin", f"{old}.norm.linear")
            put(f"{new}.linear1", *(f"{old}.attn.to_{letter}" for letter in "qkv"), f"{old}.proj_mlp")
            put(f"{new}.linear2", f"{old}.proj_out")
            put_scale(f"{new}.norm.query_norm", f"{old}.attn.norm_q")
            put_scale(f"{new}.norm.key_norm", f"{old}.attn.norm_k")
            continue
        new = f"double_blocks.{number}"
        put(f"{new}.img_attn.qkv", *(f"{old}.attn.to_{letter}" for letter in "qkv"))
        put(f"{new}.txt_attn.qkv", *(f"{old}.attn.add_{letter}_proj" for letter in "qkv"))
        put(f"{new}.img_attn.proj", f"{old}.attn.to_out.0")
        put(f"{new}.txt_attn.proj", f"{old}.attn.to_add_out")
        for side, suffix, added in (("img", "", ""), ("txt", "_context", "added_")):
            put(f"{new}.{side}_mod.lin", f"{old}.norm1{suffix}.linear")
            put(f"{new}.{side}_mlp.0", f"{old}.ff{suffix}.net.0.proj")
            put(f"{new}.{side}_mlp.2", f"{old}.ff{suffix}.net.2")
            put_scale(f"{new}.{side}_attn.norm.query_norm", f"{old}.attn.norm_{added}q")
            put_scale(f"{new}.{side}_attn.norm.key_norm", f"{old}.attn.norm_{added}k")
    return renamed


def write_hollow(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file with float16 weights of `shapes`, all of it but the header a hole that takes no disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(torch.Size(shape).numel())
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
