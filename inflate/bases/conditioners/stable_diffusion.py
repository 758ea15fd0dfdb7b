"""What Stable Diffusion 1.x, 2.x and XL are told: a text by one CLIP, or by two and the size of the picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.bases.texts import encode_clip_inner, encode_clip_text

_GUIDANCE = 7.5  # of Stable Diffusion's pipeline, for networks that are told a scale and get none


class StableDiffusionConditioner(Conditioner):
    """States of the text by CLIP's last layer; a network of latent consistency is told a scale of guidance too."""

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T, D)."""
        encoder, tokenizer = self.components["text_encoder"], self.components["tokenizer"]
        return {
            "text_states": torch.cat([encode_clip_text(encoder, tokenizer, one).text_hidden_states for one in texts])
        }

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        states = encoding["text_states"]
        return {"encoder_hidden_states": states} | guidance_told(self.network, states, guidance)


class StableDiffusionXLConditioner(Conditioner):
    """States of the second last layers of two CLIPs, the second's embedding, and the size of the picture."""

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    def preprocessing(self) -> tuple[str, ...]:
        """Whether nothing is zeros."""
        return (f"zeros={self._zeros()}",)

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T, D1 + D2) and ``text_pooled`` (B, D2)."""
        encoded = [self._encode(text) for text in texts]
        states, pooled = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        return {"text_states": states, "text_pooled": pooled}

    def unconditional(self, count: int) -> Encoding:
        """Zeros, or the empty text where the pipeline's index says ``force_zeros_for_empty_prompt`` is off."""
        empty = super().unconditional(count)
        return {name: torch.zeros_like(value) for name, value in empty.items()} if self._zeros() else empty

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """The size is the original's and the target's at once, and nothing is cropped, as in SDXL's pipeline."""
        states = encoding["text_states"]
        size = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=states.device)
        added = {"text_embeds": encoding["text_pooled"], "time_ids": size.expand(len(states), -1)}
        told = {"encoder_hidden_states": states, "added_cond_kwargs": added}
        return told | guidance_told(self.network, states, guidance)

    def _zeros(self) -> bool:
        return bool(self.options.get("force_zeros_for_empty_prompt", True))

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        encoded = [
            encode_clip_inner(self.components[f"text_encoder{suffix}"], self.components[f"tokenizer{suffix}"], text)
            for suffix in ("", "_2")
        ]
        return torch.cat([states for states, _ in encoded], dim=-1), encoded[1][1]


def guidance_told(network: Mapping[str, Any], states: Tensor, guidance: float | None) -> dict[str, Tensor]:
    """What a network with guidance in its weights is told of the scale (arXiv:2310.04378, section 4.2); else nothing.

    The scale above 1 is embedded as timesteps are, in thousandths (diffusers' ``get_guidance_scale_embedding``).
    """
    width = network.get("time_cond_proj_dim")
    if not width:
        return {}
    above = torch.tensor([1000 * ((_GUIDANCE if guidance is None else guidance) - 1)], dtype=torch.float32)
    half = width // 2
    angles = above[:, None] * torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    embedded = torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
    return {"timestep_cond": embedded.to(states).expand(len(states), -1)}
