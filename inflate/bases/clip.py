"""The text and image encoder of the chain (C_x of Make-A-Video): a small CLIP, open_clip's model from our own config.

A folder holds ``config.json`` (the layout of open_clip's hub configs: ``model_cfg`` and ``preprocess_cfg``),
``model.safetensors`` (open_clip's own parameter names) and ``bpe_merges.txt.gz`` (the tokenizer's merges, best first).
"""

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from inflate.checkpoint.narrowing import narrowed
from inflate.configs import read_object
from inflate.errors import InputError, nearest
from inflate.staging import new_file

# SimpleTokenizer: 256 bytes, the same 256 closed by "</w>", one entry per merge, start and end of text.
_NUM_BYTE_TOKENS = 2 * 256
_NUM_SPECIAL_TOKENS = 2
_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "model.safetensors"
_MERGES_NAME = "bpe_merges.txt.gz"


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of both towers.

    ``text_width`` equals ``embed_dim`` because diffusers' ``PriorTransformer`` reads the text tokens and the text
    embedding at one and the same width (its ``embedding_dim``).
    """

    embed_dim: int = 256
    image_size: int = 64  # pixels, square
    patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 4
    vision_head_width: int = 64
    context_length: int = 32  # text tokens, start and end included
    vocab_size: int = 8192
    text_width: int = 256
    text_heads: int = 4
    text_layers: int = 3
    image_mean: float = 0.5  # of pixels in [0, 1], same for each channel
    image_std: float = 0.5

    def __post_init__(self) -> None:
        if self.text_width != self.embed_dim:
            raise InputError(
                f"The CLIP config has text width {self.text_width} and embed_dim {self.embed_dim}; "
                "the prior needs both equal: set one to the other."
            )
        if self.vocab_size < _NUM_BYTE_TOKENS + _NUM_SPECIAL_TOKENS:
            raise InputError(
                f"The CLIP config has vocab_size {self.vocab_size}; it must be at least "
                f"{_NUM_BYTE_TOKENS + _NUM_SPECIAL_TOKENS} (all bytes and two special tokens)."
            )

    @property
    def num_merges(self) -> int:
        """How many byte-pair merges the tokenizer keeps: ``vocab_size - 512 - 2``."""
        return self.vocab_size - _NUM_BYTE_TOKENS - _NUM_SPECIAL_TOKENS

    def to_open_clip(self) -> dict[str, Any]:
        """The config as open_clip's hub layout has it."""
        return {
            "model_cfg": {
                "embed_dim": self.embed_dim,
                "vision_cfg": {
                    "image_size": self.image_size,
                    "patch_size": self.patch_size,
                    "width": self.vision_width,
                    "layers": self.vision_layers,
                    "head_width": self.vision_head_width,
                },
                "text_cfg": {
                    "context_length": self.context_length,
                    "vocab_size": self.vocab_size,
                    "width": self.text_width,
                    "heads": self.text_heads,
                    "layers": self.text_layers,
                },
            },
            "preprocess_cfg": {"mean": [self.image_mean] * 3, "std": [self.image_std] * 3},
        }

    @classmethod
    def from_open_clip(cls, raw: dict[str, Any], where: str) -> "ClipConfig":
        """Read the layout of :meth:`to_open_clip`.

        Raises:
            InputError: a key is missing or unknown; the sentence names ``where`` and the key.
        """
        found = dict(_flatten(raw))
        expected = dict(_flatten(cls().to_open_clip()))
        for key in found:
            if key not in expected:
                raise InputError(f"{where}: unknown key {key!r}{nearest(key, list(expected))}.")
        for key in expected:
            if key not in found:
                raise InputError(f"{where}: the key {key!r} is missing.")
        model, preprocess = raw["model_cfg"], raw["preprocess_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        return cls(
            embed_dim=model["embed_dim"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            vision_width=vision["width"],
            vision_layers=vision["layers"],
            vision_head_width=vision["head_width"],
            context_length=text["context_length"],
            vocab_size=text["vocab_size"],
            text_width=text["width"],
            text_heads=text["heads"],
            text_layers=text["layers"],
            image_mean=preprocess["mean"][0],
            image_std=preprocess["std"][0],
        )


class EncodedText(NamedTuple):
    """What the prior reads of a batch of prompts."""

    text_embeds: Tensor  # (batch, embed_dim), unit norm
    text_hidden_states: Tensor  # (batch, context_length, text_width), after the last layer norm
    mask: Tensor  # (batch, context_length) bool, True from the start token to the end token


class TextImageEncoder(nn.Module):
    """open_clip's ``CLIP`` with its tokenizer and its own preprocessing.

    ``.model`` is the open_clip module, so a training loop can use open_clip's losses on it. The methods keep gradients;
    callers that only sample use ``torch.no_grad``.
    """

    def __init__(self, config: ClipConfig, merges: list[str]) -> None:
        """Random weights for ``config``; ``merges`` are lines "first second", best first."""
        from open_clip import CLIP

        super().__init__()
        self.config = config
        self.merges = merges
        model_config = config.to_open_clip()["model_cfg"]
        self.model = CLIP(model_config["embed_dim"], model_config["vision_cfg"], model_config["text_cfg"])
        self.tokenizer = _tokenizer(merges, config.context_length)
        assert self.tokenizer.vocab_size == config.vocab_size, "the merges do not fill the vocabulary"

    @classmethod
    def create(cls, config: ClipConfig | None = None) -> "TextImageEncoder":
        """A new encoder with random weights; its merges are the first of open_clip's own list.

        Args:
            config: sizes; the default is the bundled family's.
        """
        config = config or ClipConfig()
        return cls(config, open_clip_merges(config.num_merges))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.text_projection.device  # pyright: ignore[reportReturnType, reportOptionalMemberAccess]

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return self.model.text_projection.dtype  # pyright: ignore[reportReturnType, reportOptionalMemberAccess]

    def tokenize(self, texts: list[str]) -> Tensor:
        """Token numbers (batch, context_length), int64 on the CPU; longer texts are cut, shorter ones padded with 0."""
        return self.tokenizer(texts)

    def text_mask(self, tokens: Tensor) -> Tensor:
        """True from the start token up to and with the end token; tokens (B, T) -> bool (B, T)."""
        end = tokens.argmax(dim=-1, keepdim=True)  # the end token has the highest number
        return torch.arange(tokens.shape[-1], device=tokens.device)[None] <= end

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] of any size -> (B, 3, image_size, image_size) normalised for the vision tower.

        A picture that is not square gets white bars, as the pictures had that the encoder was trained on.
        """
        size = (self.config.image_size, self.config.image_size)
        height, width = pixels.shape[-2:]
        if height != width:
            over, beside = max(0, width - height), max(0, height - width)
            pixels = functional.pad(pixels, (beside // 2, -(-beside // 2), over // 2, -(-over // 2)), value=1.0)
        if tuple(pixels.shape[-2:]) != size:
            pixels = functional.interpolate(pixels.float(), size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        return ((pixels + 1) / 2 - self.config.image_mean) / self.config.image_std

    def encode_tokens(self, tokens: Tensor) -> EncodedText:
        """Token numbers (B, T) from :meth:`tokenize` -> embeddings, hidden states and mask."""
        clip: Any = self.model
        tokens = tokens.to(self.device)
        hidden = clip.token_embedding(tokens) + clip.positional_embedding
        hidden = clip.ln_final(clip.transformer(hidden, attn_mask=clip.attn_mask))
        mask = self.text_mask(tokens)
        last = hidden[torch.arange(len(tokens), device=tokens.device), mask.sum(-1) - 1]
        return EncodedText(functional.normalize(last @ clip.text_projection, dim=-1), hidden, mask)

    def encode_text(self, texts: list[str]) -> EncodedText:
        """Prompts -> ``text_embeds`` (B, D) of unit norm, ``text_hidden_states`` (B, T, D), ``mask`` (B, T)."""
        return self.encode_tokens(self.tokenize(texts))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] -> embeddings (B, D) of unit norm."""
        pixels = self.preprocess(pixels.to(self.device)).to(self.dtype)
        return functional.normalize(self.model.visual(pixels), dim=-1)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image embeddings (B, D), text embeddings (B, D), exp of the learned logit scale: what CLIP's loss takes."""
        return self.encode_image(pixels), self.encode_tokens(tokens).text_embeds, self.model.logit_scale.exp()

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config, weights (safetensors) and merges into ``folder``; each file appears whole or not at all.

        Args:
            folder: made if missing; files of the same names are replaced.
            dtype: number format of the written weights, for instance ``torch.float16``; default: as they are.
        """
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = narrowed(self.model.state_dict(), dtype)
        config = json.dumps(self.config.to_open_clip(), indent=2) + "\n"
        _replace(folder / _MERGES_NAME, _pack_merges(self.merges))
        _replace(folder / _CONFIG_NAME, config.encode())
        _replace(folder / _WEIGHTS_NAME, save(weights, metadata={"format": "pt"}))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> "TextImageEncoder":
        """Read what :meth:`save` wrote; in evaluation mode.

        Raises:
            InputError: a file is missing or damaged, or weights and config do not fit each other.
        """
        folder = Path(folder)
        for name in (_CONFIG_NAME, _WEIGHTS_NAME, _MERGES_NAME):
            if not (folder / name).is_file():
                raise InputError(f"{folder} is not a CLIP folder: it has no {name}.")
        try:
            merges = gzip.decompress((folder / _MERGES_NAME).read_bytes()).decode().split("\n")[1:]
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{folder}: the merges of CLIP's vocabulary cannot be read ({error}).") from error
        config = ClipConfig.from_open_clip(read_object(folder / _CONFIG_NAME), str(folder / _CONFIG_NAME))
        if len(merges) != config.num_merges:
            raise InputError(f"{folder / _MERGES_NAME} has {len(merges)} merges; the config wants {config.num_merges}.")
        encoder = cls(config, merges)
        encoder.model.load_state_dict(_read_weights(folder / _WEIGHTS_NAME, encoder.model))
        encoder.eval().requires_grad_(False)
        return encoder.to(device=device, dtype=dtype)


def open_clip_merges(count: int) -> list[str]:
    """The first ``count`` merges of the list that open_clip ships (OpenAI's CLIP vocabulary), lines "first second"."""
    from open_clip.tokenizer import default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1:]
    if count > len(lines):
        raise InputError(f"The CLIP config wants {count} merges; open_clip's list has {len(lines)}.")
    return lines[:count]


def _pack_merges(merges: list[str]) -> bytes:
    # No newline at the end: SimpleTokenizer would take the empty line for one more vocabulary entry.
    return gzip.compress("\n".join(["#version: 0.2", *merges]).encode(), mtime=0)


def _tokenizer(merges: list[str], context_length: int):
    from open_clip import SimpleTokenizer

    # gzip.open, which reads bpe_path, takes an open file too.
    packed = io.BytesIO(_pack_merges(merges))
    return SimpleTokenizer(bpe_path=packed, context_length=context_length)  # pyright: ignore[reportArgumentType]


def _read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}); write or download it again.") from error
    expected = model.state_dict()
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unknown:
        raise InputError(f"{path} does not fit its config: missing {missing[:3]}, unknown {unknown[:3]}.")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            got, want = tuple(value.shape), tuple(expected[name].shape)
            raise InputError(f"{path}: {name} has shape {got}; its config wants {want}.")
    return weights


def _replace(path: Path, content: bytes) -> None:
    with new_file(path, overwrite=True) as partial:
        partial.write_bytes(content)


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves
