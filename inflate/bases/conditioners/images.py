"""What decoders of image embeddings are told: Karlo's, Kandinsky's and our own."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from inflate.bases.clip import TextImageEncoder
from inflate.bases.conditioner import Conditioner, Encoding
from inflate.bases.texts import encode_clip_text
from inflate.errors import InputError

# OpenAI's CLIP, per channel of pixels in [0, 1]; an image processor beside the encoder may say otherwise.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_TEXT_TOKENS = 77  # that Kandinsky 2.1 pads a text to


def image_conditioning(image_embeds: Tensor) -> dict[str, Tensor]:
    """What our decoder's network is told: the embedding (B, D) brought to norm sqrt(D), so that a number is about 1.

    It enters twice: added to the time embedding (``class_labels`` (B, D)) and as one token to attend to
    (``encoder_hidden_states`` (B, 1, D)), after unCLIP (arXiv:2204.06125, section 2.1). An embedding of zeros stays
    zero: the unconditional case.
    """
    scaled = functional.normalize(image_embeds, dim=-1) * math.sqrt(image_embeds.shape[-1])
    return {"class_labels": scaled, "encoder_hidden_states": scaled[:, None]}


def embed_pictures(encoder: Any, processor: Any, pixels: Tensor) -> Tensor:
    """Image embeddings (N, D) of pictures (N, 3, H, W) in [-1, 1], as CLIP gives them; float32.

    Args:
        encoder: transformers' ``CLIPVisionModelWithProjection``.
        processor: what says the mean and deviation of its pixels; None is OpenAI's.
        pixels: of any size; of a picture that is not square the centre is taken, as CLIP's own preprocessing does.
    """
    mean = torch.tensor(getattr(processor, "image_mean", None) or _MEAN, device=pixels.device)
    std = torch.tensor(getattr(processor, "image_std", None) or _STD, device=pixels.device)
    size = (int(encoder.config.image_size),) * 2
    side, (top, left) = min(pixels.shape[-2:]), ((edge - min(pixels.shape[-2:])) // 2 for edge in pixels.shape[-2:])
    pixels = pixels[..., top : top + side, left : left + side].float()
    if tuple(pixels.shape[-2:]) != size:
        pixels = functional.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
    pixels = ((pixels + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    return encoder(pixels.to(encoder.dtype)).image_embeds.float()


class ImageConditioner(Conditioner):
    """Of decoders that are told an image embedding, which a prior makes in sampling and a frame gives in training."""

    reads: ClassVar[Literal["image"]] = "image"

    @abstractmethod
    def embed(self, picture: Tensor) -> Tensor:
        """The image embedding (1, D) of a picture (1, 3, H, W) in [-1, 1], of the norm that the decoder knows."""

    @abstractmethod
    def encode_embeds(self, image_embeds: Tensor, texts: Sequence[str]) -> Encoding:
        """As :meth:`encode`, of embeddings (B, D) that are there already."""

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """As :meth:`Conditioner.encode`."""
        if pictures is None:
            raise InputError("This network is told an image embedding, so a picture is needed to tell it of a clip.")
        with torch.no_grad():
            embeds = torch.cat([self.embed(picture) for picture in pictures.split(1)])
            return self.encode_embeds(embeds, texts)


class OwnConditioner(ImageConditioner):
    """Our families' decoders: the embedding of our own CLIP, of unit norm; unconditional is zeros."""

    needs: ClassVar[tuple[str, ...]] = ("text_encoder",)

    def read(self, role: str, folder: Path, dtype: torch.dtype) -> Any:
        """Our own CLIP."""
        return TextImageEncoder.load(folder, dtype=dtype)

    def embed(self, picture: Tensor) -> Tensor:
        """As :meth:`ImageConditioner.embed`."""
        return functional.normalize(self.components["text_encoder"].encode_image(picture).float(), dim=-1)

    def encode_embeds(self, image_embeds: Tensor, texts: Sequence[str] = ()) -> Encoding:
        """``image_embeds`` (B, D); texts are not read."""
        return {"image_embeds": image_embeds}

    def unconditional(self, count: int) -> Encoding:
        """Zeros."""
        width = self.network.get("projection_class_embeddings_input_dim") or self.network["cross_attention_dim"]
        return {"image_embeds": torch.zeros(count, int(width))}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :func:`image_conditioning`."""
        return dict(image_conditioning(encoding["image_embeds"]))


class KarloConditioner(ImageConditioner):
    """Karlo's decoder: the embedding added to that of time, and four more tokens beside those of a text."""

    needs: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer", "text_proj")
    takes: ClassVar[tuple[str, ...]] = ("image_encoder", "image_processor")

    def embed(self, picture: Tensor) -> Tensor:
        """As :meth:`ImageConditioner.embed`."""
        return embed_pictures(*_picture_parts(self.components, "Karlo"), picture)

    def encode_embeds(self, image_embeds: Tensor, texts: Sequence[str]) -> Encoding:
        """``states`` (B, T + 4, D), ``mask`` (B, T + 4) and ``label`` (B, D'): what Karlo's projection makes."""
        pairs = [self._project(one, text) for one, text in zip(image_embeds.split(1), texts, strict=True)]
        return {name: torch.cat([pair[name][1:] for pair in pairs]) for name in pairs[0]}

    def unconditional(self, count: int) -> Encoding:
        """Karlo's learned embedding in place of the image's, with the empty text."""
        projection = self.components["text_proj"]
        pair = self._project(torch.zeros_like(projection.learned_classifier_free_guidance_embeddings)[None], "")
        return {name: value[:1].expand(count, *value.shape[1:]) for name, value in pair.items()}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        return {
            "encoder_hidden_states": encoding["states"],
            "class_labels": encoding["label"],
            "attention_mask": encoding["mask"],
        }

    def _project(self, image_embeds: Tensor, text: str) -> Encoding:
        """Unconditional and conditional of one embedding (1, D), together, as Karlo's pipeline projects them."""
        projection, encoder = self.components["text_proj"], self.components["text_encoder"]
        texts = [encode_clip_text(encoder, self.components["tokenizer"], one) for one in ("", text)]
        with torch.no_grad():
            states, label = projection(
                image_embeddings=image_embeds.to(projection.device, projection.dtype),
                prompt_embeds=torch.cat([one.text_embeds for one in texts]),
                text_encoder_hidden_states=torch.cat([one.text_hidden_states for one in texts]),
                do_classifier_free_guidance=True,
            )
        mask = torch.cat([one.mask for one in texts])
        mask = functional.pad(mask, (projection.config.clip_extra_context_tokens, 0), value=True)
        return {"states": states, "mask": mask, "label": label}


class KandinskyConditioner(ImageConditioner):
    """Kandinsky 2.2: an embedding alone; 2.1: a multilingual text beside it. Unconditional is an empty picture's."""

    takes: ClassVar[tuple[str, ...]] = ("image_encoder", "image_processor", "text_encoder", "tokenizer")

    def embed(self, picture: Tensor) -> Tensor:
        """As :meth:`ImageConditioner.embed`."""
        return embed_pictures(*_picture_parts(self.components, "Kandinsky"), picture)

    def encode_embeds(self, image_embeds: Tensor, texts: Sequence[str]) -> Encoding:
        """``image_embeds`` (B, D), and for 2.1 ``text_embeds`` (B, D) and ``text_states`` (B, T, D')."""
        if self._kind() == "image":
            return {"image_embeds": image_embeds}
        encoded = [self._encode(text) for text in texts]
        return {
            "image_embeds": image_embeds,
            "text_embeds": torch.cat([one[0] for one in encoded]),
            "text_states": torch.cat([one[1] for one in encoded]),
        }

    def unconditional(self, count: int) -> Encoding:
        """The empty picture's embedding, with the empty text where there is one."""
        encoder = self.components.get("image_encoder")
        if encoder is None:
            raise InputError(
                "Kandinsky's guidance needs an image encoder: name it in the role file (image_encoder = FOLDER "
                "under [decoder.components]), or use guidance_scale 1."
            )
        size = int(encoder.config.image_size)
        # Zeros after CLIP's normalisation: a picture of the mean colour.
        empty = torch.zeros(1, 3, size, size, device=encoder.device, dtype=encoder.dtype)
        with torch.no_grad():
            encoding = self.encode_embeds(encoder(empty).image_embeds, [""])
        return {name: value.expand(count, *value.shape[1:]) for name, value in encoding.items()}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        if self._kind() == "image":
            return {
                "encoder_hidden_states": None,
                "added_cond_kwargs": {"image_embeds": encoding["image_embeds"]},
            }
        added = {"text_embeds": encoding["text_embeds"], "image_embeds": encoding["image_embeds"]}
        return {"encoder_hidden_states": encoding["text_states"], "added_cond_kwargs": added}

    def _kind(self) -> str:
        kind = self.network.get("addition_embed_type")
        if kind not in ("image", "text_image"):
            raise InputError(
                f"This decoder's network takes addition_embed_type {kind!r}; Kandinsky's take 'image' (2.2) or "
                "'text_image' (2.1)."
            )
        return kind

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        """Embedding (1, D) and states (1, T, D') of a text by the multilingual CLIP."""
        missing = [role for role in ("text_encoder", "tokenizer") if role not in self.components]
        if missing:
            raise InputError(f"This decoder (Kandinsky 2.1) reads a text, and its 'decoder_{missing[0]}' is missing.")
        encoder, tokenizer = self.components["text_encoder"], self.components["tokenizer"]
        tokens = tokenizer(
            text, padding="max_length", max_length=_TEXT_TOKENS, truncation=True, return_tensors="pt"
        ).to(encoder.device)
        with torch.no_grad():
            return encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)


def _picture_parts(components: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    if "image_encoder" not in components:
        raise InputError(
            f"{name}'s decoder is told an image embedding, and there is no image encoder to make it of a picture; "
            "name its folder as the part 'image_encoder'."
        )
    return components["image_encoder"], components.get("image_processor")
