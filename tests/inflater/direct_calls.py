"""diffusers' own calls of image transformers, written out as their pipelines make them, without our adapters."""

from typing import Any

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid
from torch import Tensor


def direct(image_model: Any, inputs: dict[str, Any]) -> Tensor:
    """What `image_model` answers for the pictures, (N, C, H, W)."""
    rest = dict(inputs)
    sample = rest.pop("sample")
    special = _SPECIAL.get(type(image_model).__name__)
    return image_model(hidden_states=sample, **rest).sample if special is None else special(image_model, sample, rest)


def places(height: int, width: int, axes: int = 3) -> Tensor:
    found = [[0, row, column, *[0] * (axes - 3)] for row in range(height) for column in range(width)]
    return torch.tensor(found, dtype=torch.float32)


def pack(sample: Tensor) -> Tensor:
    n, c, h, w = sample.shape
    return sample.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    n, _, features = tokens.shape
    unpacked = tokens.view(n, height // 2, width // 2, features // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return unpacked.reshape(n, features // 4, height, width)


def _flux(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    height, width = sample.shape[-2:]
    text, image = torch.zeros(7, 3), places(height // 2, width // 2)
    return unpack(image_model(hidden_states=pack(sample), img_ids=image, txt_ids=text, **rest).sample, height, width)


def _flux2(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    height, width = sample.shape[-2:]
    text = torch.cat([torch.zeros(7, 3), torch.arange(7.0)[:, None]], dim=1)
    tokens = sample.flatten(2).transpose(1, 2)
    made = image_model(hidden_states=tokens, img_ids=places(height, width, 4), txt_ids=text, **rest).sample
    return made.transpose(1, 2).unflatten(2, (height, width))


def _qwen_image(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    height, width = sample.shape[-2:]
    shapes = [[(1, height // 2, width // 2)]] * len(sample)
    return unpack(image_model(hidden_states=pack(sample), img_shapes=shapes, **rest).sample, height, width)


def _z_image(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    made = image_model(
        [one[:, None] for one in sample], rest.pop("timestep").expand(len(sample)), list(rest.pop("cap_feats")), **rest
    )
    return torch.stack([one[:, 0] for one in made.sample])


def _hunyuan_dit(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    grid = tuple(side // 2 for side in sample.shape[-2:])
    corners = get_resize_crop_region_for_grid(grid, 512 // 8 // 2)
    rotary = get_2d_rotary_pos_embed(
        image_model.inner_dim // image_model.num_heads, corners, grid, device=sample.device, output_type="pt"
    )
    timestep = rest.pop("timestep").to(sample.dtype)
    return image_model(hidden_states=sample, timestep=timestep, image_rotary_emb=rotary, **rest).sample


def _hidream(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    return image_model(hidden_states=sample, timesteps=rest.pop("timestep"), **rest).sample


def _chroma(image_model: Any, sample: Tensor, rest: dict[str, Any]) -> Tensor:
    height, width = sample.shape[-2:]
    mask = rest.pop("attention_mask", None)
    if mask is not None:
        rest["attention_mask"] = torch.cat([mask, torch.ones(len(mask), height * width // 4)], dim=1)
    return _flux(image_model, sample, rest)


_SPECIAL = {
    "ChromaTransformer2DModel": _chroma,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux2,
    "QwenImageTransformer2DModel": _qwen_image,
    "ZImageTransformer2DModel": _z_image,
    "HunyuanDiT2DModel": _hunyuan_dit,
    "HiDreamImageTransformer2DModel": _hidream,
}
