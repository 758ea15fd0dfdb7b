"""Motion-module files with the true names, at tiny widths and with random numbers everywhere, positions too."""

from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

# name -> widths of the down blocks, module in the mid block, positions
VERSIONS: dict[str, tuple[tuple[int, ...], bool, int]] = {
    "animatediff-v1": ((8, 8, 16, 16), False, 24),
    "animatediff-v2": ((8, 8, 16, 16), True, 32),
    "animatediff-v3": ((8, 8, 16, 16), False, 32),
    "animatediff-sdxl": ((8, 8, 16), False, 32),
}
HEADS, GROUPS = 2, 4


def adapter(version: str, seed: int = 0) -> MotionAdapter:
    """diffusers' MotionAdapter with random weights; its positions are sines and cosines."""
    widths, mid, length = VERSIONS[version]
    made = MotionAdapter(
        block_out_channels=widths,
        motion_num_attention_heads=HEADS,
        motion_norm_num_groups=GROUPS,
        motion_max_seq_length=length,
        use_motion_mid_block=mid,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made.eval()


def image_model(version: str, seed: int = 0) -> UNet2DConditionModel:
    """A UNet with the blocks of Stable Diffusion 1.5, or of XL."""
    widths = VERSIONS[version][0]
    torch.manual_seed(seed)
    shared: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": widths,
        "layers_per_block": 2,
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
    }
    if len(widths) == 4:
        return UNet2DConditionModel(**shared).eval()
    return UNet2DConditionModel(
        **shared,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=34,
    ).eval()


def as_animatediff(tensors: dict[str, Tensor], seed: int = 9) -> dict[str, Tensor]:
    """A MotionAdapter's tensors by AnimateDiff's names, written out by hand; positions are random and all differ."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for key, tensor in tensors.items():
        start, rest = key.split(".motion_modules.")
        number, rest = rest.split(".", 1)
        whole = f"{start}.motion_modules.{number}.temporal_transformer.{rest}"
        if whole.endswith(".pos_embed.pe"):
            block = whole.removesuffix("pos_embed.pe")
            for attention in (0, 1):
                table = torch.randn(tensor.shape, generator=generator)
                result[f"{block}attention_blocks.{attention}.pos_encoder.pe"] = table
            continue
        for theirs, ours in (("attn1", "attention_blocks.0"), ("attn2", "attention_blocks.1")):
            whole = whole.replace(f".{theirs}.", f".{ours}.")
        for theirs, ours in (("norm1", "norms.0"), ("norm2", "norms.1"), ("norm3", "ff_norm")):
            whole = whole.replace(f".{theirs}.", f".{ours}.")
        result[whole] = tensor
    return result


def as_hotshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """AnimateDiff's names as Hotshot-XL has them."""
    return {
        key.replace("motion_modules", "temporal_attentions")
        .replace("temporal_transformer.", "")
        .replace("pos_encoder.pe", "pos_encoder.positional_encoding"): tensor
        for key, tensor in tensors.items()
    }


def write(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().to(dtype).contiguous() for key, tensor in tensors.items()}, path)
    return path
