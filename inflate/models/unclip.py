"""Priors of other people's unCLIP pipelines (Karlo, Kandinsky 2.1 and 2.2), with the CLIP of transformers."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.errors import InputError
from inflate.models.clip import EncodedText
from inflate.models.foreign import encode_clip_text, read_part, write_part
from inflate.models.prior import PriorStage
from inflate.stages import StageSettings

# OpenAI's CLIP, per channel of pixels in [0, 1]; an image processor beside the encoder may say otherwise.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class UnclipPriorStage(PriorStage):
    """P of Karlo and Kandinsky: prompts in, image embeddings out, of the norm that CLIP gives them.

    The steps and the guidance are Karlo's and Kandinsky's own.
    """

    player: ClassVar[str] = "unclip"
    folders: ClassVar[dict[str, str]] = {}
    defaults = StageSettings(num_inference_steps=25, guidance_scale=4.0)
    unit_norm: ClassVar[bool] = False
    image_roles: ClassVar[tuple[str, ...]] = ("image_encoder", "image_processor")

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """Parts of diffusers and transformers."""
        return read_part(folder, library, class_name, dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        return write_part(component, folder)

    def encode_text(self, prompt: str) -> EncodedText:
        """One prompt (batch 1) as the prior reads it."""
        return encode_clip_text(self.components["text_encoder"], self.components["tokenizer"], prompt)

    def embed_pictures(self, pixels: Tensor) -> Tensor:
        """Image embeddings (N, D) of pictures (N, 3, H, W) in [-1, 1], as CLIP gives them.

        Raises:
            InputError: this prior came without an image encoder.
        """
        encoder = self.components.get("image_encoder")
        if encoder is None:
            raise InputError(
                "This prior has no image encoder, which embedding images needs; name one in the role file: "
                "image_encoder = FOLDER under [prior.components]."
            )
        processor = self.components.get("image_processor")
        mean = torch.tensor(getattr(processor, "image_mean", None) or _MEAN, device=pixels.device)
        std = torch.tensor(getattr(processor, "image_std", None) or _STD, device=pixels.device)
        size = (int(encoder.config.image_size),) * 2
        pixels = pixels.float()
        if tuple(pixels.shape[-2:]) != size:
            # Nothing of a picture may be cut off, so one that is not square is squeezed.
            pixels = functional.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        pixels = ((pixels + 1) / 2 - mean[:, None, None]) / std[:, None, None]
        return encoder(pixels.to(encoder.dtype)).image_embeds.float()
