"""HiDream-I1 (arXiv:2505.22705): the picture, then texts of several layers of a language model; experts."""

from typing import Any

import torch
from diffusers import HiDreamImageTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from einops import rearrange
from torch import Tensor, nn

from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.transformer import Blocks, Transformer
from inflate.errors import InputError


class HiDream(Transformer):
    """`HiDreamImageTransformer2DModel`."""

    image_model_class = HiDreamImageTransformer2DModel
    given = ("self", "hidden_states", "timesteps", "return_dict", "img_ids", "img_sizes", "hidden_states_masks")
    blocks = (
        Blocks("double_stream_blocks", ("block.attn1",), answer=0),
        Blocks("single_stream_blocks", ("block.attn1",)),
    )
    embedding = "x_embedder"
    last = "final_layer.linear"
    others_at = ("double_stream_blocks", "single_stream_blocks", "x_embedder", "final_layer.linear")
    picture_is = "first"  # text follows, and the padding of pictures that are not square
    time_embedding = "t_embedder"
    timestep_name = "timesteps"
    pooled = (("pooled_embeds", "text_emb_dim"),)
    layered = ("encoder_hidden_states_llama3",)
    text_tokens = 128
    native_cells = 128
    without_memory = False  # its experts are chosen by numbers

    def check_size(self, image_model: nn.Module, height: int, width: int) -> None:
        """Pictures that are not square are padded to the largest."""
        super().check_size(image_model, height, width)
        config: Any = image_model.config
        rows, columns = config.max_resolution
        if height != width and height * width > rows * columns:
            raise InputError(
                f"{type(image_model).__name__} takes pictures of {rows} x {columns} cells at most unless they are "
                f"square, got {height} x {width}"
            )

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """See `Transformer`."""
        return ("encoder_hidden_states_t5", "encoder_hidden_states_llama3", "pooled_embeds")

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        made = super().call(image_model, pictures, timestep, arguments).sample
        height, width = pictures.shape[-2:]
        if made.shape[-2:] != pictures.shape[-2:]:  # in training it answers tokens, (N, C, tokens, patch * patch)
            config: Any = image_model.config
            patch = self.patch_size(config)
            own = made[:, :, : self.num_tokens(image_model, (height, width))]
            made = rearrange(own, "n c (h w) (p q) -> n c (h p) (w q)", h=height // patch, p=patch)
        return Transformer2DModelOutput(sample=made)

    def gather_frames(self, arguments: dict[str, Any], num_frames: int) -> dict[str, Any]:
        """One rotary table for each picture, (N, tokens, ...), its own places before those of its text."""
        own = arguments["norm_hidden_states"].shape[1]
        parts = arguments["image_rotary_emb"].split((own, arguments["image_rotary_emb"].shape[1] - own), dim=1)
        tables = (part.unflatten(0, (-1, num_frames)).flatten(1, 2) for part in parts)
        gathered = super().gather_frames(arguments, num_frames)
        return {**gathered, "image_rotary_emb": torch.cat(tuple(tables), dim=1)}

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """T5's text, that of every layer of the language model, and a pooled one."""
        config = image_model.config
        t5, llama = config.caption_channels
        layers = range(max(config.llama_layers) + 1)
        return {
            "encoder_hidden_states_t5": source.normal(NUM_TEXT_TOKENS, int(t5)),
            "encoder_hidden_states_llama3": [source.normal(NUM_TEXT_TOKENS, int(llama)) for _ in layers],
            **super().random_conditions(image_model, source, size),
        }
