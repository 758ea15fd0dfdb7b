"""Texts as people's text encoders read them, one at a time, so that none depends on its company in the last bit."""

import warnings
from typing import Any

import torch
from torch import Tensor

from inflate.bases.clip import EncodedText


def warn_if_cut(prompt: str, length: int, limit: int) -> None:
    """Warn of a prompt of more tokens than the text encoder reads."""
    if length > limit:
        warnings.warn(
            f"The prompt {prompt[:40]!r}... has {length} tokens; only the first {limit - 1} were read.", stacklevel=2
        )


def clip_tokens(text_encoder: Any, tokenizer: Any, text: str) -> Any:
    """CLIP's tokens of a text, ``input_ids`` and ``attention_mask`` (1, T), padded to what the encoder knows."""
    limit = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
    warn_if_cut(text, len(tokenizer(text).input_ids), limit)
    return tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")


def encode_clip_text(text_encoder: Any, tokenizer: Any, text: str) -> EncodedText:
    """A text as transformers' ``CLIPTextModelWithProjection`` encodes it, padded to the length the encoder knows.

    Embedding and hidden states (batch 1) are as the model gives them, the embedding not of unit norm: unCLIP's networks
    were trained so.
    """
    tokens = clip_tokens(text_encoder, tokenizer, text)
    with torch.no_grad():
        encoded = text_encoder(tokens.input_ids.to(text_encoder.device))
    mask = tokens.attention_mask.bool().to(text_encoder.device)
    embeds = getattr(encoded, "text_embeds", None)
    if embeds is None:
        embeds = encoded.pooler_output
    return EncodedText(embeds, encoded.last_hidden_state, mask)


def encode_clip_inner(text_encoder: Any, tokenizer: Any, text: str) -> tuple[Tensor, Tensor]:
    """States (1, T, D) of a CLIP's second last layer, and its first answer: the embedding (1, D'), where it has one."""
    tokens = clip_tokens(text_encoder, tokenizer, text)
    with torch.no_grad():
        encoded = text_encoder(tokens.input_ids.to(text_encoder.device), output_hidden_states=True)
    return encoded.hidden_states[-2], encoded[0]


def encode_t5_text(
    text_encoder: Any, tokenizer: Any, text: str, limit: int, masked: bool = False, tell: bool = True
) -> tuple[Tensor, Tensor]:
    """States (1, ``limit``, D) of a T5 encoder or another, and the mask (1, ``limit``) of its tokens, whole numbers.

    ``masked``: whether the encoder itself looks at the text's tokens only, as PixArt's does, or at the padding too.
    ``tell``: whether to warn of a text that is cut.
    """
    if tell:
        warn_if_cut(text, len(tokenizer(text).input_ids), limit)
    tokens = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
    mask = tokens.attention_mask.to(text_encoder.device)
    with torch.no_grad():
        states = text_encoder(tokens.input_ids.to(text_encoder.device), attention_mask=mask if masked else None)[0]
    return states, mask
