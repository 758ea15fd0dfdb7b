"""Z-Image (arXiv:2511.22699): the picture, padded, and then the text in one sequence; lists instead of batches."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from inflate.adapters.adapter import PictureTokens, each, require
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.sites import Blocks
from inflate.adapters.transformer import Transformer

Z_IMAGE_PATCH = 2  # and one frame: the only kind of patch in any published config
CONDITION_DIM = 256  # diffusers' ADALN_EMBED_DIM


class ZImage(Transformer):
    """`ZImageTransformer2DModel`, of pictures made from text alone."""

    image_model_class = ZImageTransformer2DModel
    given = ("self", "x", "t", "return_dict", "patch_size", "f_patch_size", "siglip_feats", "image_noise_mask")
    blocks = (
        Blocks("noise_refiner", ("attention",), condition="adaln_input", with_others=True),
        Blocks("layers", ("attention",), condition="adaln_input", with_others=True),
    )
    embedding = "all_x_embedder.2-1"
    embedding_with_others = True
    last = "all_final_layer.2-1.linear"
    last_with_others = True
    time_embedding = "t_embedder"
    conditions = ("cap_feats",)
    listed = ("cap_feats",)
    fractions = True
    text_tokens = 512
    native_cells = 128

    def patch_size(self, config: Mapping[str, Any]) -> int:
        """See `Z_IMAGE_PATCH`."""
        return Z_IMAGE_PATCH

    def num_heads(self, config: Any) -> tuple[int, int]:
        """See `Transformer`."""
        return int(config.n_heads), int(config.dim) // int(config.n_heads)

    def condition_dim(self, config: Any) -> int:
        """See `Transformer`."""
        return min(int(config.dim), CONDITION_DIM)

    def largest_size(self, config: Any) -> int:
        """Rotary positions are a table."""
        return Z_IMAGE_PATCH * min(config.axes_lens[1:])

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """Before its padding and the text."""
        return self.first_tokens(image_model, size, num_pictures)

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`; `cap_feats` is a list of texts (tokens, D), or one tensor of them."""
        self.check_size(image_model, *pictures.shape[-2:])
        require(image_model, arguments, self.conditions)
        texts = {"cap_feats": list(arguments["cap_feats"])}
        output = image_model(x=list(pictures[:, :, None]), t=each(timestep, pictures), **{**arguments, **texts})
        return Transformer2DModelOutput(sample=torch.stack(output.sample).squeeze(2))

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text."""
        return {"cap_feats": source.normal(NUM_TEXT_TOKENS, int(image_model.config.cap_feat_dim))}
