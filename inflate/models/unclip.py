"""Priors of other people's unCLIP pipelines (Karlo, Kandinsky 2.1 and 2.2), with the CLIP of transformers."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.clip import EncodedText
from inflate.bases.conditioners.images import embed_pictures
from inflate.bases.parts import read_part, write_part
from inflate.bases.texts import encode_clip_text
from inflate.errors import InputError
from inflate.models.prior import PriorStage
from inflate.stages import StageSettings


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
        return read_part(folder, library, class_name, dtype, self.variant)

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
        return embed_pictures(encoder, self.components.get("image_processor"), pixels)
