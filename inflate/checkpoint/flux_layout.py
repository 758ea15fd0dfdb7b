"""FLUX's own names of weights -> diffusers'. diffusers' function for it has the width of FLUX.1 written into it."""

import re

from torch import Tensor

_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
# Within a block; several names share one matrix, one under the other.
_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_BLOCKS = {"double_blocks": ("transformer_blocks", _DOUBLE), "single_blocks": ("single_transformer_blocks", _SINGLE)}
_BLOCK = re.compile(r"^(double_blocks|single_blocks)\.(\d+)\.(.+)$")


def rename_flux(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under diffusers' names, and the names of those that are none of FLUX's."""
    width = tensors["img_in.weight"].shape[0]
    renamed: dict[str, Tensor] = {}
    unused: list[str] = []
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        places = _places(stem)
        if not places or kind not in ("weight", "bias", "scale"):
            unused.append(name)
            continue
        kind = "weight" if kind == "scale" else kind
        if stem == "final_layer.adaLN_modulation.1":
            # Shift and scale there, scale and shift here.
            renamed[f"{places[0]}.{kind}"] = tensor.roll(tensor.shape[0] // 2, 0)
            continue
        rows = [width] * (len(places) - 1)
        parts = tensor.split([*rows, tensor.shape[0] - sum(rows)]) if rows else (tensor,)
        for place, part in zip(places, parts, strict=True):
            renamed[f"{place}.{kind}"] = part.clone() if rows else part
    return renamed, unused


def _places(stem: str) -> tuple[str, ...]:
    """What diffusers calls the layer, or the layers that share it; none for a stranger."""
    if stem in _ENDS:
        return (_ENDS[stem],)
    found = _BLOCK.match(stem)
    if found is None:
        return ()
    blocks, names = _BLOCKS[found[1]]
    return tuple(f"{blocks}.{found[2]}.{name}" for name in names.get(found[3], ()))
