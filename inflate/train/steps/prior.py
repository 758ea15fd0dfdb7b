"""Training the prior P: CLIP text embedding -> CLIP image embedding by diffusion (unCLIP, arXiv:2204.06125, 2.2).

It predicts the clean embedding itself under a mean-squared error, and sees pictures and captions only, never video.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import PriorTransformer
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch import Tensor

from inflate.models.clip import EncodedText, TextImageEncoder
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network, read_network
from inflate.train.pictures import (
    PictureSampler,
    caption_variant,
    encode_all,
    open_data,
    weights_key,
    write_json,
)
from inflate.train.processes import DiffusionProcess, diffusion_config
from inflate.train.recipe import Recipe, parse_table
from inflate.train.step import Batch

SCHEDULER = {
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
    "clip_sample_range": 5.0,
}


@dataclass(frozen=True)
class PriorOptions:
    """``clip``: folder of the encoder; ``model``: PriorTransformer's arguments, or ``init``: a folder to start from;
    ``text_dropout``: share of captions dropped."""

    clip: str
    init: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    text_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.init:
            check_model(PriorTransformer, self.model)


class PriorStep(DenoisingStep):
    """The TrainStep of the prior."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(PriorOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.cache = open_data(recipe.data, captions=True)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.clip = TextImageEncoder.load(self.options.clip, device=device, dtype=torch.float32)
        self.embeds = encode_all(
            self.cache,
            "image-embeds",
            weights_key(self.options.clip),
            lambda pixels: self.clip.encode_image(pixels.to(device)),
        )
        torch.manual_seed(recipe.train.seed)
        self.scheduler: Any = UnCLIPScheduler(**SCHEDULER)
        self.process = DiffusionProcess(diffusion_config(self.scheduler.config, "UnCLIPScheduler"))
        if self.options.init:
            self.trained: Any = read_network(PriorTransformer, self.options.init, "init")
            self._fix_statistics()
            return
        self.trained = new_network(PriorTransformer, self.options.model)
        self._set_statistics(recipe)

    def _set_statistics(self, recipe: Recipe) -> None:
        """The prior diffuses embeddings of zero mean and unit variance; the model carries the statistics itself."""
        numbers = self.cache.select(split=recipe.data.split)
        rows = np.array([self.cache.entries[n].start for n in numbers])
        embeds = torch.from_numpy(self.embeds[rows].astype(np.float32))
        with torch.no_grad():
            self.trained.clip_mean.copy_(embeds.mean(0, keepdim=True))
            self.trained.clip_std.copy_(embeds.std(0, keepdim=True).clamp_min(1e-4))
        self._fix_statistics()

    def _fix_statistics(self) -> None:
        self.trained.clip_mean.requires_grad_(False)
        self.trained.clip_std.requires_grad_(False)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Image embeddings (B, D) and tokens (B, T) of their captions, some captions empty."""
        entries, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        texts = [caption_variant(self.cache.entries[e].caption, self.cache.entries[e].keywords, rng) for e in entries]
        texts = ["" if rng.random() < self.options.text_dropout else text for text in texts]
        embeds = torch.from_numpy(self.embeds[rows].astype(np.float32))
        return {"embeds": embeds, "tokens": self.clip.tokenize(texts)}

    def problem(self, batch: Batch) -> Problem:
        """Embeddings of zero mean and unit variance, told their captions (some empty already)."""
        with torch.no_grad():
            text = self.clip.encode_tokens(batch["tokens"].to(self.device))
        clean = (batch["embeds"].to(self.device) - self.trained.clip_mean) / self.trained.clip_std
        return Problem(clean, torch.randn_like(clean), _call, _conditions(text), _conditions(self._null, len(clean)))

    @cached_property
    def _null(self) -> EncodedText:
        """The empty caption, which the frozen encoder need not read at every update."""
        with torch.no_grad():
            return self.clip.encode_text([""])

    def measures(self, problem: Problem, predicted: Tensor) -> dict[str, Tensor]:
        """Cosine of predicted and true embeddings."""
        made, true = (self.trained.post_process_latents(one.float()) for one in (predicted, problem.clean))
        return {"cosine": F.cosine_similarity(made, true).mean()}

    def sheet(self, path: Path) -> None:
        """Cosine between made and true embeddings, from pure noise, for captions of both splits, as JSON."""
        from inflate.models.prior import prior_sample

        figures = {}
        for split in ("train", "test"):
            numbers = self.cache.select(kind="still", split=split)[:128]
            if not numbers:
                continue
            entries = [self.cache.entries[n] for n in numbers]
            text = self.clip.encode_text([e.caption for e in entries])
            true = torch.from_numpy(self.embeds[[e.start for e in entries]].astype(np.float32)).to(self.device)
            made = prior_sample(
                self.trained,
                UnCLIPScheduler(**SCHEDULER),
                text.text_embeds,
                text.text_hidden_states,
                text.mask,
                guidance_scale=1.0,
                num_inference_steps=10,
                generator=torch.Generator(self.device).manual_seed(0),
            )
            figures[split] = {"cosine": float(F.cosine_similarity(made.float(), true).mean()), "pictures": len(numbers)}
        write_json(path.with_suffix(".json"), figures)

    def export(self, folder: Path) -> None:
        """``prior/`` and ``prior_scheduler/`` as diffusers writes them, float16."""
        save_half(self.trained, folder / "prior")
        self.scheduler.save_pretrained(folder / "prior_scheduler")


def _conditions(text: EncodedText, repeated: int = 1) -> dict[str, Any]:
    return {
        "proj_embedding": text.text_embeds.repeat(repeated, 1),
        "encoder_hidden_states": text.text_hidden_states.repeat(repeated, 1, 1),
        "attention_mask": text.mask.repeat(repeated, 1),
    }


def _call(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
    return network(noisy, timestep, **conditions, **more).predicted_image_embedding


def build(recipe: Recipe, device: torch.device) -> PriorStep:
    """The step a recipe with ``step = "prior"`` trains."""
    return PriorStep(recipe, device)
