"""Qwen-Image (arXiv:2508.02324): patches packed as FLUX's; text and picture have rotary tables of their own."""

from collections.abc import Mapping
from typing import Any

from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from inflate.adapters.transformer import Transformer
from inflate.errors import InputError
from inflate.schemes import Scheme


class QwenImage(Transformer):
    """`QwenImageTransformer2DModel`, of pictures made from text."""

    image_model_class = QwenImageTransformer2DModel
    given = (*Transformer.given, "img_shapes")
    embedding = "img_in"
    features = "c p q"
    packed = True
    fractions = True
    texts = (("encoder_hidden_states", "joint_attention_dim"),)
    text_tokens = 1024
    native_cells = 128

    def channels(self, config: Mapping[str, Any]) -> int:
        """Of its latents before they are packed."""
        return super().channels(config) // self.patch_size(config) ** 2

    def check_scheme(self, image_model: nn.Module, scheme: Scheme) -> None:
        """No editing model: it embeds two time steps for each picture."""
        config: Any = image_model.config
        if config.zero_cond_t:
            raise InputError(
                f"this {type(image_model).__name__} edits pictures (its config has zero_cond_t), and only models that "
                "make them from text can be inflated; take Qwen-Image itself"
            )

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The shape of each picture in tokens."""
        config: Any = image_model.config
        height, width = (size // self.patch_size(config) for size in pictures.shape[-2:])
        return {"img_shapes": [[(1, height, width)]] * pictures.shape[0]}

    def rotary_tables_of_all(self, tables: tuple[Tensor, ...], num_text: int, num_frames: int) -> tuple[Tensor, ...]:
        """One table of the picture's places, one of the text's."""
        return tuple(table.repeat(num_frames, 1) for table in tables)
