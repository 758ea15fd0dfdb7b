"""Training emoji-sd's text encoder: a caption's states become the CLIP image embedding of what the caption names.

It starts as our CLIP's text tower with layers on top. At the end token and the padding after it, where all of the
caption is known, each state learns (by squared error) the embedding of a picture of that thing, brought to norm sqrt(D)
as ``image_conditioning`` has it: a prior without diffusion, of which the mean is enough, a name having few pictures.
An image decoder that knows such embeddings then reads these states by cross-attention and finds nearly what it knows.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emoji_family.looks import looks_of
from emoji_family.pipeline import read_vae
from emoji_family.text import (
    convert_text_encoder,
    read_text_encoder,
    read_tokenizer,
    tokens_of,
    write_text_encoder,
    write_tokenizer,
)
from inflate.data import FrameCache
from inflate.models.clip import TextImageEncoder
from inflate.models.decoder import encode_pixels
from inflate.train.pictures import PictureSampler, caption_variant, encode_all, open_data, weights_key, write_json
from inflate.train.recipe import Recipe, parse_table
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class TextEncoderOptions:
    """``clip``: folder to start from and whose image embeddings are learned; ``extra_layers`` on top of its own.

    ``dropout``: share of captions replaced by "", which learns the mean embedding. ``keywords``: share of captions with
    or made of keywords. ``word_weight``: how much the states before the end token count, which know less.

    ``vae``: where it is a folder, looks in its latents (:mod:`emoji_family.looks`) are learned and not embeddings.
    ``init``: folder with a ``text_encoder`` to go on from. ``length``: tokens in three of four updates, 0 for all: few
    captions need all, and the padding behind them costs most of the time.
    """

    clip: str
    extra_layers: int = 2
    dropout: float = 0.05
    keywords: float = 0.3
    word_weight: float = 0.1
    vae: str = ""
    init: str = ""
    length: int = 0


class Captions:
    """The captions of a cache's entries as a person would type them, and their tokens."""

    def __init__(self, cache: FrameCache, tokenizer: Any, dropout: float, keywords: float) -> None:
        self.cache, self.tokenizer, self.dropout, self.keywords = cache, tokenizer, dropout, keywords

    def draw(self, entries: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Token numbers (B, T) of one caption for each entry; "" for a share of them."""
        return tokens_of(self.tokenizer, [self._one(int(number), rng) for number in entries])

    def _one(self, number: int, rng: np.random.Generator) -> str:
        entry, drawn = self.cache.entries[number], rng.random(2)
        if drawn[0] < self.dropout:
            return ""
        return caption_variant(entry.caption, entry.keywords, rng) if drawn[1] < self.keywords else entry.caption


def image_embeds(cache: FrameCache, clip: str, device: torch.device) -> np.ndarray:
    """CLIP image embeddings (total_frames, D) of unit norm, float16, computed once and kept beside the cache."""
    encoder = TextImageEncoder.load(clip, device=device, dtype=torch.float32)
    return encode_all(cache, "image-embeds", weights_key(clip), lambda pixels: encoder.encode_image(pixels.to(device)))


def latents_of(cache: FrameCache, vae: Any, folder: str, device: torch.device) -> np.ndarray:
    """Latents (total_frames, c, h, w) of ``vae``, which lies in ``folder``; float16, computed once likewise."""
    return encode_all(cache, "latents", weights_key(folder), lambda pixels: encode_pixels(vae, pixels.to(device)))


def scaled(embeds: Tensor) -> Tensor:
    """Embeddings (..., D) brought to norm sqrt(D), as the bundled decoder's cross-attention reads them."""
    return functional.normalize(embeds.float(), dim=-1) * math.sqrt(embeds.shape[-1])


def known_from(tokens: Tensor, end: int) -> Tensor:
    """True from the first end token on: where a causal encoder has seen all of the caption; (B, T) -> bool (B, T)."""
    return (tokens == end).long().cumsum(dim=-1) > 0


class TextEncoderStep:
    """The TrainStep of the text encoder."""

    unit = "captions"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(TextEncoderOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.cache = open_data(recipe.data, captions=True)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.clip = TextImageEncoder.load(self.options.clip, dtype=torch.float32)
        folder = recipe.output_folder / "export" / "tokenizer"
        write_tokenizer(self.clip, folder)
        tokenizer = read_tokenizer(folder)
        self.captions = Captions(self.cache, tokenizer, self.options.dropout, self.options.keywords)
        torch.manual_seed(recipe.train.seed)
        model = convert_text_encoder(self.clip, self.options.extra_layers)
        if self.options.init:
            model = read_text_encoder(Path(self.options.init) / "text_encoder")
        self.trained: Any = model.requires_grad_(True)
        self.embeds, self.looks = None, None
        if self.options.vae:
            latents = latents_of(self.cache, read_vae(self.options.vae, device), self.options.vae, device)
            names = {entry.name for entry in self.cache.entries if entry.split == recipe.data.split}
            self.looks = looks_of(self.cache, latents, names, self.trained.config.hidden_size)
            # What a component's error costs in latents.
            self.importance = self.looks.deviations.square() / self.looks.deviations.square().mean()
        else:
            self.embeds = image_embeds(self.cache, self.options.clip, device)
            self.importance = torch.ones(self.trained.config.hidden_size)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Tokens (B, T) and what their states shall be (B, D): scaled image embeddings, or looks."""
        entries, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        tokens = self.captions.draw(entries, rng)
        length = self.options.length if update % 4 else 0
        return {"tokens": tokens[:, : length or None], "target": self._target(entries, rows)}

    def _target(self, entries: np.ndarray, rows: np.ndarray) -> Tensor:
        if self.looks is not None:
            return torch.stack([self.looks.codes[self.cache.entries[int(number)].name] for number in entries])
        assert self.embeds is not None
        return scaled(torch.from_numpy(self.embeds[rows].astype(np.float32)))

    def __call__(self, batch: Batch) -> StepLoss:
        """Mean squared error over the states, those before the end token counting less."""
        tokens, target = batch["tokens"].to(self.device), batch["target"].to(self.device)
        states = self.trained(tokens).last_hidden_state.float()
        error = ((states - target[:, None]).square() * self.importance.to(self.device)).mean(dim=-1)
        known = known_from(tokens, int(self.trained.config.eos_token_id))
        weight = torch.where(known, 1.0, self.options.word_weight)
        last = (states[:, -1] * target).sum(-1) / (states[:, -1].norm(dim=-1) * target.norm(dim=-1))
        return StepLoss((error * weight).sum() / weight.sum(), {"cosine": last.detach().mean()})

    def sheet(self, path: Path) -> None:
        """Writes how near each split's captions come to their own stills, as JSON."""
        figures = {split: self._figures(split) for split in ("train", "test")}
        write_json(path.with_suffix(".json"), figures)

    def _figures(self, split: str) -> dict[str, float]:
        """Cosine of made and true embedding, and how often the own still's is the nearest (among the 5 nearest)."""
        numbers = {self.cache.entries[n].name: n for n in self.cache.select(kind="still", split=split)}
        entries = [self.cache.entries[n] for n in numbers.values()]
        if not entries:
            return {}
        if self.looks is not None and not all(entry.name in self.looks.codes for entry in entries):
            return {}
        true = self._target(np.array(list(numbers.values())), np.array([entry.start for entry in entries]))
        tokens = tokens_of(self.captions.tokenizer, [e.caption for e in entries])
        made = torch.cat([self.trained(t.to(self.device)).last_hidden_state[:, -1].cpu() for t in tokens.split(128)])
        made, true = (value.float() * self.importance.sqrt() for value in (made, true))
        explained = 1 - float((made - true).square().sum() / (true - true.mean(dim=0)).square().sum())
        similarity = functional.normalize(made, dim=-1) @ functional.normalize(true, dim=-1).T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        recall = {f"recall@{k}": float((rank < k).float().mean()) for k in (1, 5)}
        cosine = float(similarity.diagonal().mean())
        return {"cosine": cosine, "explained": explained, **recall, "pictures": len(entries)}

    def export(self, folder: Path) -> None:
        """``text_encoder`` (float32, which the next step goes on from) and ``tokenizer``."""
        write_text_encoder(self.trained, folder / "text_encoder", torch.float32)
        write_tokenizer(self.clip, folder / "tokenizer")


def build(recipe: Recipe, device: torch.device) -> TextEncoderStep:
    """The step a recipe with ``step = "text-encoder"`` trains."""
    return TextEncoderStep(recipe, device)
