"""Karlo's decoder (github.com/kakaobrain/karlo, arXiv:2204.06125 section 2.1): image embedding and text -> 64 px.

The image embedding is added to the time embedding and gives four more tokens to attend to, beside those of a text.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.bases.clip import EncodedText
from inflate.bases.texts import encode_clip_text
from inflate.models.foreign import ForeignDecoderStage, TextConfig, optional_config
from inflate.stages import StageSettings


class KarloDecoderStage(ForeignDecoderStage):
    """Karlo's decoder, inflated or frame by frame; the steps and the guidance are Karlo's own."""

    player: ClassVar[str] = "karlo"
    defaults = StageSettings(num_inference_steps=25, guidance_scale=8.0)
    config_class = TextConfig
    config: TextConfig

    def embed_size(self) -> int | None:
        """As :meth:`DecoderStage.embed_size`; the projection's config says it."""
        return optional_config(self.component_config("text_proj"), "clip_embeddings_dim")

    def told(self, image_embeds: Tensor, prompt: str, guided: bool) -> dict[str, Any]:
        """Unconditional is Karlo's learned embedding in place of the image's, with the empty text."""
        projection = self.components["text_proj"]
        text = self._encode(prompt if self.config.read_prompt else "")
        texts = [self._encode(""), text] if guided else [text]
        states, label = projection(
            image_embeddings=image_embeds.to(projection.dtype),
            prompt_embeds=torch.cat([one.text_embeds for one in texts]),
            text_encoder_hidden_states=torch.cat([one.text_hidden_states for one in texts]),
            do_classifier_free_guidance=guided,
        )
        mask = torch.cat([one.mask for one in texts])
        mask = functional.pad(mask, (projection.config.clip_extra_context_tokens, 0), value=True)
        return {"encoder_hidden_states": states, "class_labels": label, "attention_mask": mask}

    def _encode(self, text: str) -> EncodedText:
        return encode_clip_text(self.components["decoder_text_encoder"], self.components["decoder_tokenizer"], text)
