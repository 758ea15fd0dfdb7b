"""Kandinsky's decoder (2.2: image embedding alone; 2.1: a multilingual text beside it) with its MoVQ autoencoder.

Guidance goes away from the CLIP embedding of an empty picture, as in Kandinsky's own pipelines, so it needs the prior's
image encoder; a role file lends it.
"""

from typing import ClassVar

import torch
from torch import Tensor

from inflate.bases.conditioner import Encoding
from inflate.bases.conditioners.images import KandinskyConditioner
from inflate.models.foreign import ForeignDecoderStage, TextConfig, optional_config
from inflate.stages import StageSettings
from inflate.video import fold_frames, unfold_frames


class KandinskyDecoderStage(ForeignDecoderStage):
    """Kandinsky's decoder, inflated or frame by frame; the guidance is Kandinsky's own."""

    player: ClassVar[str] = "kandinsky"
    conditioner_class = KandinskyConditioner
    defaults = StageSettings(num_inference_steps=50, guidance_scale=4.0)
    config_class = TextConfig
    config: TextConfig

    def embed_size(self) -> int | None:
        """As :meth:`DecoderStage.embed_size`."""
        config = self.component_config("unet")
        of_text = config.get("addition_embed_type") == "text_image"
        return optional_config(config, "cross_attention_dim" if of_text else "encoder_hid_dim")

    def encode_told(self, conditioner: KandinskyConditioner, image_embeds: Tensor, prompt: str) -> Encoding:
        """The embedding, and for 2.1 the prompt where it is read, else the empty text."""
        return conditioner.encode_embeds(image_embeds, [prompt if self.config.read_prompt else ""])

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Latents (1, c, F, h, w) through the MoVQ, one frame at a time; it knows no scaling factor."""
        with torch.no_grad():
            pictures = [self.decode(frame).clamp(-1, 1) for frame in fold_frames(latents).split(1)]
        return unfold_frames(torch.cat(pictures), latents.shape[2])

    def encode(self, pixels: Tensor) -> Tensor:
        """As :meth:`DecoderStage.encode`, one frame at a time."""
        return torch.cat([super(KandinskyDecoderStage, self).encode(picture) for picture in pixels.split(1)])
