"""Qwen-Image (arXiv:2508.02324): patches packed as FLUX's; text and picture have rotary tables of their own."""

from collections.abc import Mapping
from typing import Any

from diffusers import QwenImageTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from inflate.adapters.adapter import each, require
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.adapters.transformer import Transformer
from inflate.errors import InputError
from inflate.schemes import Scheme


class QwenImage(Transformer):
    """`QwenImageTransformer2DModel`, of pictures made from text."""

    image_model_class = QwenImageTransformer2DModel
    given = (*Transformer.given, "img_shapes")
    embedding = "img_in"
    features = "c p q"
    fractions = True
    text_tokens = 1024
    native_cells = 128

    def channels(self, config: Mapping[str, Any]) -> int:
        """Of its latents before they are packed."""
        return super().channels(config) // self.patch_size(config) ** 2

    def check_scheme(self, image_model: nn.Module, scheme: Scheme) -> None:
        """No editing model: it embeds two time steps for each picture."""
        super().check_scheme(image_model, scheme)
        config: Any = image_model.config
        if config.zero_cond_t:
            raise InputError(
                f"this {type(image_model).__name__} edits pictures (its config has zero_cond_t), and only models that "
                "make them from text can be inflated; take Qwen-Image itself"
            )

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        height, width = pictures.shape[-2:]
        self.check_size(image_model, height, width)
        require(image_model, arguments, self.conditions)
        config: Any = image_model.config
        patch = self.patch_size(config)
        output = image_model(
            hidden_states=self.patch(pictures, image_model),
            timestep=each(timestep, pictures),
            img_shapes=[[(1, height // patch, width // patch)]] * pictures.shape[0],
            **arguments,
        )
        return Transformer2DModelOutput(sample=self.unpatch(output.sample, image_model, (height, width)))

    def rotary_tables_of_all(self, tables: tuple[Tensor, ...], num_text: int, num_frames: int) -> tuple[Tensor, ...]:
        """One table of the picture's places, one of the text's."""
        return tuple(table.repeat(num_frames, 1) for table in tables)

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A text."""
        return {"encoder_hidden_states": source.normal(NUM_TEXT_TOKENS, int(image_model.config.joint_attention_dim))}
