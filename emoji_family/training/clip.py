"""Training the small CLIP (C_x) on pictures and captions: the symmetric contrastive loss (arXiv:2103.00020, 2.3)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.loss import ClipLoss

from inflate.data import FrameCache
from inflate.models.clip import ClipConfig, TextImageEncoder
from inflate.train.pictures import PictureSampler, caption_variant, open_data
from inflate.train.recipe import Recipe, parse_table
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class ClipOptions:
    """``model``: sizes (ClipConfig); ``shift_pixels``: pictures move by up to this much, white flows in."""

    model: dict[str, Any] = field(default_factory=dict)
    shift_pixels: int = 3

    def __post_init__(self) -> None:
        parse_table(ClipConfig, self.model, "options.model")


class ClipStep:
    """The TrainStep of the text and image encoder."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        options = parse_table(ClipOptions, recipe.options, "options")
        self.options, self.device, self.seed = options, device, recipe.train.seed
        self.cache: FrameCache = open_data(recipe.data, captions=True)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        torch.manual_seed(recipe.train.seed)
        self.trained = TextImageEncoder.create(parse_table(ClipConfig, options.model, "options.model"))
        self.loss = ClipLoss()

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Pixels (B, 3, S, S) and tokens (B, T) of distinct things."""
        entries, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        texts = [caption_variant(self.cache.entries[e].caption, self.cache.entries[e].keywords, rng) for e in entries]
        pixels, margin = self.sampler.pixels(rows), self.options.shift_pixels
        if margin:
            padded = torch.nn.functional.pad(pixels, (margin,) * 4, value=1.0)
            size = pixels.shape[-1]
            offsets = rng.integers(0, 2 * margin + 1, size=(batch_size, 2))
            pixels = torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)])
        return {"pixels": pixels, "tokens": self.trained.tokenize(texts)}

    def __call__(self, batch: Batch) -> StepLoss:
        """Symmetric cross-entropy over the batch."""
        image, text, scale = self.trained(batch["pixels"].to(self.device), batch["tokens"].to(self.device))
        with torch.no_grad():  # CLIP clips the scale at 100
            self.trained.model.logit_scale.clamp_(max=float(np.log(100)))
        total = self.loss(image.float(), text.float(), scale.float())
        hits = (image @ text.T).argmax(1) == torch.arange(len(image), device=self.device)
        return StepLoss(total, {"hits": hits.float().mean()})

    def _recall(self, split: str) -> dict[str, float]:
        """Recall of the own picture by its caption among the stills of a split, one still per name."""
        numbers = {self.cache.entries[n].name: n for n in self.cache.select(kind="still", split=split)}
        entries = [self.cache.entries[n] for n in numbers.values()]
        if not entries:
            return {}
        pixels = self.sampler.pixels(np.array([e.start for e in entries]))
        image = torch.cat([self.trained.encode_image(part.to(self.device)) for part in pixels.split(256)])
        text = self.trained.encode_text([e.caption for e in entries]).text_embeds
        similarity = text @ image.T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        return {f"recall@{k}": float((rank < k).float().mean()) for k in (1, 5)} | {"pictures": len(entries)}

    def sheet(self, path: Path) -> None:
        """Writes recall of the train and test split as JSON (an encoder has no picture to show)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {split: self._recall(split) for split in ("train", "test")}
        path.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")

    def export(self, folder: Path) -> None:
        """A CLIP folder that ``TextImageEncoder.load`` reads, float16."""
        self.trained.save(folder, dtype=torch.float16)


def build(recipe: Recipe, device: torch.device) -> ClipStep:
    """The step a recipe with ``step = "clip"`` trains."""
    return ClipStep(recipe, device)
