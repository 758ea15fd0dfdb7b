"""Hunyuan-DiT (arXiv:2405.08748): two texts, long skips, and rotary positions that its pipeline computes."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import HunyuanDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from torch import Tensor, nn

from inflate.adapters.inputs import RandomSource
from inflate.adapters.transformer import Blocks, Transformer
from inflate.errors import InputError
from inflate.schemes import Scheme

BASE_CELLS = 64  # along a side of the pictures whose positions all others' are fitted into


class HunyuanDiT(Transformer):
    """`HunyuanDiT2DModel`; up to version 1.1 it is told sizes and a style."""

    image_model_class = HunyuanDiT2DModel
    given = (*Transformer.given, "image_rotary_emb")
    blocks = (Blocks("blocks", ("attn1",), ("attn2",)),)
    joint = False
    time_embedding = "time_extra_emb"

    def check_scheme(self, image_model: nn.Module, scheme: Scheme) -> None:
        """Keys have their places in one picture."""
        if scheme.frames_seen == "first-and-previous":
            raise InputError(
                f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}: its rotary positions are "
                "those of one picture, and attention would look at two; choose 'latte' or 'spacetime-dit'"
            )

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """Two texts with their masks, and in older versions sizes and a style."""
        config: Any = image_model.config
        texts = ("encoder_hidden_states", "text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5")
        return (*texts, "image_meta_size", "style") if config.use_style_cond_and_image_meta_size else texts

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`. The dtype of the time step is the one it is embedded in."""
        timestep = torch.as_tensor(timestep, device=pictures.device).to(pictures.dtype)
        return super().call(image_model, pictures, timestep, arguments)

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Rotary tables."""
        config: Any = image_model.config
        return {"image_rotary_emb": self._rotary(config, pictures.shape[-2], pictures.shape[-1], pictures.device)}

    def _rotary(self, config: Any, height: int, width: int, device: torch.device) -> Any:
        """The grid of tokens scaled to fit into that of the base size, in its middle, as its pipeline does."""
        patch = self.patch_size(config)
        rows, columns, base = height // patch, width // patch, BASE_CELLS // patch
        fitted = [round(base / max(rows, columns) * side) for side in (rows, columns)]
        start = [round((base - side) / 2) for side in fitted]
        corners = (start[0], start[1]), (start[0] + fitted[0], start[1] + fitted[1])
        _, head_dim = self.num_heads(config)
        return get_2d_rotary_pos_embed(head_dim, corners, (rows, columns), device=device, output_type="pt")

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """CLIP's text and T5's, the latter's masks of different lengths."""
        config = image_model.config
        lengths, places = source.integers(1, config.text_len_t5 + 1, 1), torch.arange(config.text_len_t5)
        told = {
            "encoder_hidden_states": source.normal(int(config.text_len), int(config.cross_attention_dim)),
            "text_embedding_mask": source.integers(1, 2, int(config.text_len)),
            "encoder_hidden_states_t5": source.normal(int(config.text_len_t5), int(config.cross_attention_dim_t5)),
            "text_embedding_mask_t5": (places.to(source.device) < lengths).long(),
        }
        if config.use_style_cond_and_image_meta_size:
            told["image_meta_size"] = source.integers(256, 1024, 6).to(source.dtype)
            told["style"] = source.integers(0, 1)
        return told
