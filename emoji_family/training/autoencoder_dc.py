"""Training the autoencoder whose latents the decoder works in (diffusers' AutoencoderDC, arXiv:2410.10733)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC

from emoji_family.training.autoencoder_loss import autoencoder_loss
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network
from inflate.train.pictures import PictureSampler, open_data
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class AutoencoderOptions:
    """``model``: AutoencoderDC's arguments; weights of the loss; noise on the latents; shift of pictures in pixels."""

    model: dict[str, Any] = field(default_factory=dict)
    edge_weight: float = 0.5
    moment_weight: float = 0.01
    latent_noise: float = 0.1
    shift_pixels: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_model(AutoencoderDC, self.model)


class AutoencoderStep:
    """The TrainStep of the autoencoder."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(AutoencoderOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.sampler = PictureSampler(open_data(recipe.data), recipe.data, recipe.train.seed)
        torch.manual_seed(recipe.train.seed)
        self.trained: Any = new_network(AutoencoderDC, self.options.model)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Pixels (B, 3, S, S), shifted and flipped."""
        _, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        pixels, margin = self.sampler.pixels(rows), self.options.shift_pixels
        if self.options.flip and rng.random() < 0.5:
            pixels = pixels.flip(-1)
        if margin:
            size = pixels.shape[-1]
            top, left = rng.integers(0, 2 * margin + 1, size=2)
            padded = torch.nn.functional.pad(pixels, (margin,) * 4, value=1.0)
            pixels = padded[:, :, top : top + size, left : left + size].contiguous()
        return {"pixels": pixels}

    def __call__(self, batch: Batch) -> StepLoss:
        """L1, edges and latent moments; the decoder sees slightly noisy latents."""
        pixels = batch["pixels"].to(self.device)
        latents = self.trained.encode(pixels).latent
        noisy = latents + self.options.latent_noise * torch.randn_like(latents)
        made = self.trained.decode(noisy).sample
        loss = autoencoder_loss(pixels, made, latents, self.options.edge_weight, self.options.moment_weight)
        return StepLoss(loss.total, {"l1": loss.reconstruction, "edges": loss.edges, "moments": loss.moments})

    def sheet(self, path: Path) -> None:
        """Pictures above their reconstructions."""
        _, rows = self.sampler.draw(0, 1_000_003, 16)
        pixels = self.sampler.pixels(rows).to(self.device)
        made = self.trained.decode(self.trained.encode(pixels).latent).sample
        write_rows(path, [pixels, made], scale=2)

    def export(self, folder: Path) -> None:
        """A diffusers folder, float16, whose ``scaling_factor`` makes latents of unit variance."""
        latents = []
        for part in range(8):
            _, rows = self.sampler.draw(0, 2_000_003 + part, 64)
            latents.append(self.trained.encode(self.sampler.pixels(rows).to(self.device)).latent.float())
        deviation = float(torch.cat(latents).std())
        self.trained.register_to_config(scaling_factor=round(1 / deviation, 4))
        save_half(self.trained, folder)


def build(recipe: Recipe, device: torch.device) -> AutoencoderStep:
    """The step a recipe with ``step = "autoencoder"`` trains."""
    return AutoencoderStep(recipe, device)
