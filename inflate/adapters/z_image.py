"""Z-Image (arXiv:2511.22699): the picture, padded, and then the text in one sequence; lists instead of batches."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from inflate.adapters.transformer import Blocks, Transformer

Z_IMAGE_PATCH = 2  # and one frame: the only kind of patch in any published config
CONDITION_DIM = 256  # diffusers' ADALN_EMBED_DIM


class ZImage(Transformer):
    """`ZImageTransformer2DModel`, of pictures made from text alone."""

    image_model_class = ZImageTransformer2DModel
    given = ("self", "x", "t", "return_dict", "patch_size", "f_patch_size", "siglip_feats", "image_noise_mask")
    blocks = (
        Blocks("noise_refiner", ("attention",), condition="adaln_input"),
        Blocks("layers", ("attention",), condition="adaln_input"),
    )
    embedding = "all_x_embedder.2-1"
    last = "all_final_layer.2-1.linear"
    others_at = ("noise_refiner", "layers", "all_x_embedder.2-1", "all_final_layer.2-1.linear")
    picture_is = "first"
    time_embedding = "t_embedder"
    sample_name = "x"
    timestep_name = "t"
    texts = (("cap_feats", "cap_feat_dim"),)
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

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`; `cap_feats` is a list of texts (tokens, D), or one tensor of them."""
        output = super().call(image_model, pictures, timestep, arguments)
        return Transformer2DModelOutput(sample=torch.stack(output.sample).squeeze(2))

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Lists: texts may differ in their lengths."""
        return {"cap_feats": list(arguments["cap_feats"])}

    def sample_argument(self, pictures: Tensor, image_model: nn.Module) -> Any:
        """A list of videos of one frame."""
        return list(pictures[:, :, None])
