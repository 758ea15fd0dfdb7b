"""An AutoencoderKL that speaks the latents of another autoencoder: the teacher's latents become its encoder's mean.

So a diffusion model that was trained in the teacher's latents draws in this one's, and need not be trained anew. The
decoder learns to draw pictures from the teacher's latents and from its own encoder's alike, both slightly noised (as in
latent diffusion, arXiv:2112.10752 section 3.1, it should forgive small errors of a sampler).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch.nn import functional

from emoji_family.training.autoencoder_loss import edge_maps
from inflate.errors import InputError
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network, read_network
from inflate.train.pictures import PictureSampler, open_data
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class AutoencoderKLOptions:
    """``teacher``: folder of the AutoencoderDC whose latents are learned; ``model``: AutoencoderKL's arguments.

    ``latent_weight`` of the squared error of latents (in units of the scaled ones), ``edge_weight`` of the L1 error of
    edges beside that of pixels. ``latent_noise``: deviation on the scaled latents that the decoder sees.
    ``log_variance`` is what the encoder says of every latent: a small constant. ``shift_pixels``, ``flip``: how
    pictures are moved.
    """

    teacher: str
    model: dict[str, Any] = field(default_factory=dict)
    latent_weight: float = 0.3
    edge_weight: float = 0.5
    latent_noise: float = 0.08
    log_variance: float = -8.0
    shift_pixels: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_model(AutoencoderKL, self.model)


class AutoencoderKLStep:
    """The TrainStep of the autoencoder."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(AutoencoderKLOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.sampler = PictureSampler(open_data(recipe.data), recipe.data, recipe.train.seed)
        self.teacher: Any = read_network(AutoencoderDC, self.options.teacher, "teacher")
        self.teacher.to(device).eval().requires_grad_(False)
        self.scale = float(self.teacher.config["scaling_factor"])
        torch.manual_seed(recipe.train.seed)
        self.trained: Any = new_network(AutoencoderKL, self.options.model, scaling_factor=self.scale)
        channels = int(self.teacher.config["latent_channels"])
        if self.trained.config["latent_channels"] != channels:
            raise InputError(f"options.model needs latent_channels = {channels}, as {self.options.teacher} has.")

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Pixels (B, 3, S, S), each shifted by its own distance, half of the batches flipped."""
        _, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        pixels, margin = self.sampler.pixels(rows), self.options.shift_pixels
        if self.options.flip and rng.random() < 0.5:
            pixels = pixels.flip(-1)
        if margin:
            size = pixels.shape[-1]
            padded = functional.pad(pixels, (margin,) * 4, value=1.0)
            offsets = rng.integers(0, 2 * margin + 1, size=(batch_size, 2))
            pixels = torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)])
        return {"pixels": pixels}

    def __call__(self, batch: Batch) -> StepLoss:
        """L1 of pixels and edges, and the distance from the teacher's latents."""
        pixels = batch["pixels"].to(self.device)
        with torch.no_grad():
            taught = self.teacher.encode(pixels).latent.float() * self.scale
        mean = self.trained.encode(pixels).latent_dist.mean.float() * self.scale
        latents = functional.mse_loss(mean, taught)
        # The first half of the batch decodes what the encoder says, the other what it ought to say.
        half = (len(pixels) + 1) // 2
        given = torch.cat([mean[:half], taught[half:]])
        given = given + self.options.latent_noise * torch.randn_like(given)
        made = self.trained.decode(given / self.scale).sample.float()
        main = functional.l1_loss(made, pixels)
        pairs = zip(edge_maps(made), edge_maps(pixels), strict=True)
        edges = torch.stack([functional.l1_loss(own, true) for own, true in pairs]).sum()
        total = main + self.options.edge_weight * edges + self.options.latent_weight * latents
        return StepLoss(total, {"l1": main, "edges": edges, "latents": latents})

    def sheet(self, path: Path) -> None:
        """Pictures above their reconstructions, and below what it makes of the teacher's latents."""
        _, rows = self.sampler.draw(0, 1_000_003, 16)
        pixels = self.sampler.pixels(rows).to(self.device)
        made = self.trained.decode(self.trained.encode(pixels).latent_dist.mean).sample
        taught = self.trained.decode(self.teacher.encode(pixels).latent).sample
        write_rows(path, [pixels, made, taught], scale=2)

    def export(self, folder: Path) -> None:
        """A diffusers folder, float16; the variance that it states is ``log_variance`` for every picture."""
        constant_variance(self.trained, self.options.log_variance)
        save_half(self.trained, folder)


def constant_variance(model: Any, log_variance: float) -> None:
    """Make the encoder state one variance, in place: the mean alone was trained, and the rest would be noise.

    The moments come from ``quant_conv`` (1 x 1) in two halves, mean and log variance.
    """
    weight, bias = model.quant_conv.weight, model.quant_conv.bias
    half: int = weight.shape[0] // 2
    with torch.no_grad():
        weight[half:] = 0
        bias[half:] = log_variance


def build(recipe: Recipe, device: torch.device) -> AutoencoderKLStep:
    """The step a recipe with ``step = "autoencoder-kl"`` trains."""
    return AutoencoderKLStep(recipe, device)
