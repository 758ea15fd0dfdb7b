"""Z-Image (arXiv:2511.22699): the picture, padded, and then the text in one sequence; lists instead of batches."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from inflate.adapters.transformer import Blocks, Transformer


class ZImage(Transformer):
    """`ZImageTransformer2DModel`, of pictures made from text alone."""

    image_model_class = ZImageTransformer2DModel
    given = ("self", "x", "t", "return_dict", "patch_size", "f_patch_size", "siglip_feats", "image_noise_mask")
    blocks = (
        Blocks("noise_refiner", ("attention",), condition="adaln_input"),
        Blocks("layers", ("attention",), condition="adaln_input"),
    )
    # Patches of two by two and one frame: the only kind in any published config.
    embedding = "all_x_embedder.2-1"
    last = "all_final_layer.2-1.linear"
    others_at = ("noise_refiner", "layers", "all_x_embedder.2-1", "all_final_layer.2-1.linear")
    picture_is = "first"
    time_embedding = "t_embedder"
    largest_condition = 256  # diffusers' ADALN_EMBED_DIM
    sample_name = "x"
    timestep_name = "t"
    texts = (("cap_feats", "cap_feat_dim"),)
    listed = ("cap_feats",)
    fractions = True
    usual_text_tokens = 512
    native_cells = 128

    @property
    def num_heads(self) -> int:
        return int(self.config.n_heads)

    @property
    def width(self) -> int:
        return int(self.config.dim)

    def call(self, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`; `cap_feats` is a list of texts (tokens, D), or one tensor of them."""
        output = super().call(pictures, timestep, arguments)
        return Transformer2DModelOutput(sample=torch.stack(output.sample).squeeze(2))

    def own_arguments(self, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Lists: texts may differ in their lengths."""
        return {"cap_feats": list(arguments["cap_feats"])}

    def sample_argument(self, pictures: Tensor) -> Any:
        """A list of videos of one frame."""
        return list(pictures[:, :, None])
