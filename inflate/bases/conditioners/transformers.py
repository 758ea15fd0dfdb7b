"""What image transformers are told: texts by T5, with CLIPs beside it, or by Gemma, as in diffusers' pipelines."""

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.bases.texts import clip_tokens, encode_clip_inner, encode_t5_text, warn_if_cut

_GUIDANCE = 3.5  # that FLUX's pipeline tells its network by default
_ALPHA_TOKENS, _SIGMA_TOKENS = 120, 300
_SANA_TOKENS = 300
_SD3_TOKENS = 256
_DEV_TOKENS, _SCHNELL_TOKENS = 512, 256
_SIZED = 128  # sample_size of the PixArt-alpha that is told resolution and aspect ratio


class PixArtConditioner(Conditioner):
    """States of the text by T5, with the mask of its tokens; PixArt-alpha at 1024 px is told the picture's size too."""

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    @property
    def sized(self) -> bool:
        """Whether the network is told resolution and aspect ratio."""
        told = self.network.get("use_additional_conditions")
        return self.network.get("sample_size") == _SIZED if told is None else bool(told)

    @property
    def tokens(self) -> int:
        """How many tokens a text is padded to: 120 in alpha, 300 in sigma, whose config alone has the key below."""
        told = self.options.get("max_sequence_length")
        sigma = self.network.get("use_additional_conditions") is False
        return int(told or (_SIGMA_TOKENS if sigma else _ALPHA_TOKENS))

    def preprocessing(self) -> tuple[str, ...]:
        """How texts are written and padded."""
        return ("lower, strip", str(self.tokens))

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T, D) and ``text_mask`` (B, T)."""
        encoder, tokenizer = self.components["text_encoder"], self.components["tokenizer"]
        encoded = [encode_t5_text(encoder, tokenizer, text.lower().strip(), self.tokens, masked=True) for text in texts]
        return {
            "text_states": torch.cat([one[0] for one in encoded]),
            "text_mask": torch.cat([one[1] for one in encoded]),
        }

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        states, added = encoding["text_states"], {"resolution": None, "aspect_ratio": None}
        if self.sized:
            count, like = len(states), {"dtype": states.dtype, "device": states.device}
            added = {
                "resolution": torch.tensor([[height, width]], **like).expand(count, -1),
                "aspect_ratio": torch.tensor([[height / width]], **like).expand(count, -1),
            }
        return {
            "encoder_hidden_states": states,
            "encoder_attention_mask": encoding["text_mask"],
            "added_cond_kwargs": added,
        }


class SanaConditioner(Conditioner):
    """States of the text by Gemma with the mask of its tokens, behind the instruction that SANA was trained with.

    Of instruction and text together the first token and the last 299 are told. What guidance goes away from has no
    instruction before it.
    """

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    @property
    def tokens(self) -> int:
        """How many tokens the network is told."""
        return int(self.options.get("max_sequence_length") or _SANA_TOKENS)

    def preprocessing(self) -> tuple[str, ...]:
        """How texts are written and padded."""
        return ("lower, strip", _sana_instruction(), str(self.tokens))

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T, D) and ``text_mask`` (B, T)."""
        return self._encoded(texts, _sana_instruction())

    def encode_plainly(self, texts: Sequence[str]) -> Encoding:
        """As :meth:`encode`, without the instruction: what guidance goes away from."""
        return self._encoded(texts, "")

    def unconditional(self, count: int) -> Encoding:
        """The empty text, without the instruction."""
        return {name: value.expand(count, *value.shape[1:]) for name, value in self.encode_plainly([""]).items()}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        return {
            "encoder_hidden_states": encoding["text_states"],
            "encoder_attention_mask": encoding["text_mask"],
        }

    def _encoded(self, texts: Sequence[str], instruction: str) -> Encoding:
        encoder, tokenizer = self.components["text_encoder"], self.components["tokenizer"]
        tokenizer.padding_side = "right"
        # Both begin with a token of their own, and one place is the text's first.
        limit = len(tokenizer.encode(instruction)) + self.tokens - 2 if instruction else self.tokens
        encoded = []
        for text in texts:
            written = text.lower().strip()
            warn_if_cut(text, len(tokenizer(written).input_ids), self.tokens)
            states, mask = encode_t5_text(encoder, tokenizer, instruction + written, limit, masked=True, tell=False)
            kept = [0, *range(limit - self.tokens + 1, limit)]
            encoded.append((states[:, kept], mask[:, kept]))
        return {
            "text_states": torch.cat([one[0] for one in encoded]),
            "text_mask": torch.cat([one[1] for one in encoded]),
        }


@cache
def _sana_instruction() -> str:
    """What diffusers' pipeline writes before a prompt by default."""
    from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return "\n".join(lines)


class StableDiffusion3Conditioner(Conditioner):
    """Two CLIPs' states side by side, T5's behind them (zeros without a T5), and both CLIPs' embeddings."""

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    takes: ClassVar[tuple[str, ...]] = ("text_encoder_3", "tokenizer_3")

    def preprocessing(self) -> tuple[str, ...]:
        """How texts are padded."""
        return (str(_SD3_TOKENS),)

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T + 256, D) and ``text_pooled`` (B, D1 + D2)."""
        encoded = [self._encode(text) for text in texts]
        return {
            "text_states": torch.cat([one[0] for one in encoded]),
            "text_pooled": torch.cat([one[1] for one in encoded]),
        }

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        return {"encoder_hidden_states": encoding["text_states"], "pooled_projections": encoding["text_pooled"]}

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        states, pooled = zip(
            *(
                encode_clip_inner(self.components[f"text_encoder{suffix}"], self.components[f"tokenizer{suffix}"], text)
                for suffix in ("", "_2")
            ),
            strict=True,
        )
        clip = torch.cat(states, dim=-1)
        t5 = self._t5(text, clip)
        clip = functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return torch.cat([clip, t5], dim=-2), torch.cat(pooled, dim=-1)

    def _t5(self, text: str, like: Tensor) -> Tensor:
        encoder = self.components.get("text_encoder_3")
        if encoder is None:
            return like.new_zeros(1, _SD3_TOKENS, int(self.network["joint_attention_dim"]))
        return encode_t5_text(encoder, self.components["tokenizer_3"], text, _SD3_TOKENS)[0].to(like.dtype)


class FluxConditioner(Conditioner):
    """T5's states and CLIP's embedding; FLUX.1 dev is told a scale of guidance, which its weights hold."""

    reads: ClassVar[Literal["text"]] = "text"
    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    @property
    def guided(self) -> bool:
        """Whether guidance is in the weights: dev's, not schnell's."""
        return bool(self.network.get("guidance_embeds", False))

    @property
    def tokens(self) -> int:
        """How many tokens T5's text is padded to; schnell knows half as many as dev."""
        told = self.options.get("max_sequence_length")
        return int(told or (_DEV_TOKENS if self.guided else _SCHNELL_TOKENS))

    def preprocessing(self) -> tuple[str, ...]:
        """How texts are padded."""
        return (str(self.tokens),)

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``text_states`` (B, T, D) and ``text_pooled`` (B, D')."""
        t5 = self.components["text_encoder_2"], self.components["tokenizer_2"]
        states = [encode_t5_text(*t5, text, self.tokens)[0] for text in texts]
        return {"text_states": torch.cat(states), "text_pooled": torch.cat([self._pooled(text) for text in texts])}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`; ``guidance`` None is 3.5, as in FLUX's pipeline."""
        states = encoding["text_states"]
        told = {"encoder_hidden_states": states, "pooled_projections": encoding["text_pooled"]}
        if self.guided:
            scale = _GUIDANCE if guidance is None else float(guidance)
            told["guidance"] = torch.full((len(states),), scale, dtype=torch.float32, device=states.device)
        return told

    def _pooled(self, text: str) -> Tensor:
        encoder = self.components["text_encoder"]
        tokens = clip_tokens(encoder, self.components["tokenizer"], text)
        with torch.no_grad():
            return encoder(tokens.input_ids.to(encoder.device)).pooler_output
