"""Kandinsky's decoder (2.2: image embedding alone; 2.1: a multilingual text beside it) with its MoVQ autoencoder.

Guidance goes away from the CLIP embedding of an empty picture, as in Kandinsky's own pipelines, so it needs the prior's
image encoder; a role file lends it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.models.foreign import ForeignDecoderStage, TextConfig, optional_config
from inflate.stages import StageSettings
from inflate.video import fold_frames, unfold_frames

_TEXT_TOKENS = 77  # that Kandinsky 2.1 pads a text to


class KandinskyDecoderStage(ForeignDecoderStage):
    """Kandinsky's decoder, inflated or frame by frame; the guidance is Kandinsky's own."""

    player: ClassVar[str] = "kandinsky"
    defaults = StageSettings(num_inference_steps=50, guidance_scale=4.0)
    config_class = TextConfig
    config: TextConfig

    def embed_size(self) -> int | None:
        """As :meth:`DecoderStage.embed_size`."""
        config = self.component_config("unet")
        of_text = config.get("addition_embed_type") == "text_image"
        return optional_config(config, "cross_attention_dim" if of_text else "encoder_hid_dim")

    def told(self, image_embeds: Tensor, prompt: str, guided: bool) -> dict[str, Any]:
        """Unconditional is the empty picture's embedding, with the empty text where there is one."""
        kind = self.components["unet"].config.get("addition_embed_type")
        if kind not in ("image", "text_image"):
            raise InputError(
                f"This decoder's network takes addition_embed_type {kind!r}; Kandinsky's take 'image' (2.2) or "
                "'text_image' (2.1)."
            )
        embeds = torch.cat([self._empty(image_embeds), image_embeds]) if guided else image_embeds
        if kind == "image":
            return {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": embeds}}
        text = prompt if self.config.read_prompt else ""
        encoded = [self._encode(one) for one in (("", text) if guided else (text,))]
        added = {"text_embeds": torch.cat([one[0] for one in encoded]), "image_embeds": embeds}
        return {"encoder_hidden_states": torch.cat([one[1] for one in encoded]), "added_cond_kwargs": added}

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Latents (1, c, F, h, w) through the MoVQ, one frame at a time; it knows no scaling factor."""
        with torch.no_grad():
            pictures = [self.decode(frame).clamp(-1, 1) for frame in fold_frames(latents).split(1)]
        return unfold_frames(torch.cat(pictures), latents.shape[2])

    def decode(self, latents: Tensor) -> Tensor:
        """As :meth:`DecoderStage.decode`."""
        vae = self.components["vae"]
        return vae.decode(latents.to(vae.dtype), force_not_quantize=True).sample.float()

    def encode(self, pixels: Tensor) -> Tensor:
        """As :meth:`DecoderStage.encode`, one frame at a time."""
        vae = self.components["vae"]
        return torch.cat([vae.encode(picture.to(vae.dtype)).latents.float() for picture in pixels.split(1)])

    def _empty(self, image_embeds: Tensor) -> Tensor:
        encoder = self.components.get("image_encoder")
        if encoder is None:
            raise InputError(
                "Kandinsky's guidance needs an image encoder: name it in the role file (image_encoder = FOLDER "
                "under [decoder.components]), or use guidance_scale 1."
            )
        size = int(encoder.config.image_size)
        # Zeros after CLIP's normalisation: a picture of the mean colour.
        empty = torch.zeros(1, 3, size, size, device=encoder.device, dtype=encoder.dtype)
        return encoder(empty).image_embeds.to(image_embeds)

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        """Embedding (1, D) and states (1, T, D') of a text by the multilingual CLIP."""
        missing = [role for role in ("decoder_text_encoder", "decoder_tokenizer") if role not in self.components]
        if missing:
            raise InputError(f"This decoder (Kandinsky 2.1) reads a text, and its {missing[0]!r} is missing.")
        encoder, tokenizer = self.components["decoder_text_encoder"], self.components["decoder_tokenizer"]
        tokens = tokenizer(
            text, padding="max_length", max_length=_TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(encoder.device)
        return encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
