"""Karlo's decoder (github.com/kakaobrain/karlo, arXiv:2204.06125 section 2.1): image embedding and text -> 64 px.

The image embedding is added to the time embedding and gives four more tokens to attend to, beside those of a text.
"""

from typing import ClassVar

from torch import Tensor

from inflate.bases.conditioner import Encoding
from inflate.bases.conditioners.images import KarloConditioner
from inflate.models.foreign import ForeignDecoderStage, TextConfig, optional_config
from inflate.stages import StageSettings


class KarloDecoderStage(ForeignDecoderStage):
    """Karlo's decoder, inflated or frame by frame; the steps and the guidance are Karlo's own."""

    player: ClassVar[str] = "karlo"
    conditioner_class = KarloConditioner
    defaults = StageSettings(num_inference_steps=25, guidance_scale=8.0)
    config_class = TextConfig
    config: TextConfig

    def embed_size(self) -> int | None:
        """As :meth:`DecoderStage.embed_size`; the projection's config says it."""
        return optional_config(self.component_config("text_proj"), "clip_embeddings_dim")

    def encode_told(self, conditioner: KarloConditioner, image_embeds: Tensor, prompt: str) -> Encoding:
        """The embedding, with the prompt where it is read, else with the empty text."""
        return conditioner.encode_embeds(image_embeds, [prompt if self.config.read_prompt else ""])
