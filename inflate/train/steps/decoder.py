"""Training the image decoder D: CLIP image embedding -> picture, in the autoencoder's latents, v-prediction."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from torch import Tensor

from inflate.data import FrameCache
from inflate.models.clip import TextImageEncoder
from inflate.models.decoder import decode_latents, image_conditioning, sample_latents
from inflate.train.choices import check_choices
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network, read_network
from inflate.train.noising import sampler_of, schedule_of
from inflate.train.pictures import PictureSampler, encode_all, open_data, weights_key
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch


@dataclass(frozen=True)
class DecoderOptions:
    """``clip`` and ``vae``: folders; ``model``: UNet2DConditionModel's arguments, or ``init``: a folder to start from;
    ``weighting`` as in ``loss_weight``; ``timestep_power`` as in ``DiffusionProcess``; ``scheduler``, ``predict`` and
    ``zero_terminal_snr`` as in ``schedule_of``: they turn a model that predicts eps into one that predicts v."""

    clip: str
    vae: str
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    condition_dropout: float = 0.1
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0
    scheduler: str = ""
    predict: str = ""
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.init:
            check_model(UNet2DConditionModel, self.model)


class Encodings:
    """Latents and CLIP image embeddings of every frame of a cache, computed once by the frozen encoders."""

    def __init__(self, cache: FrameCache, clip: str, vae: str, device: torch.device) -> None:
        self.vae: Any = read_network(AutoencoderDC, vae, "vae")
        self.vae.to(device).eval().requires_grad_(False)
        self.scale = float(self.vae.config["scaling_factor"])
        encoder = TextImageEncoder.load(clip, device=device, dtype=torch.float32)
        self.embeds = encode_all(
            cache, "image-embeds", weights_key(clip), lambda pixels: encoder.encode_image(pixels.to(device))
        )
        self.latents = encode_all(
            cache, "latents", weights_key(vae), lambda pixels: self.vae.encode(pixels.to(device)).latent * self.scale
        )

    def of_rows(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents (count, c, h, w) and embeddings (count, D), float32."""
        return (
            torch.from_numpy(self.latents[rows].astype(np.float32)),
            torch.from_numpy(self.embeds[rows].astype(np.float32)),
        )


def told(embeds: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the family's networks are told of image embeddings (B, D), and in guidance's other branch."""
    return image_conditioning(embeds), image_conditioning(torch.zeros_like(embeds))


def call_network(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
    """What a network predicts that takes its conditions as they are."""
    return network(noisy, timestep, **conditions, **more).sample


class DecoderStep(DenoisingStep):
    """The TrainStep of the image decoder D."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(DecoderOptions, recipe.options, "options")
        self.device = device
        self.cache = open_data(recipe.data)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.encodings = Encodings(self.cache, self.options.clip, self.options.vae, device)
        config = schedule_of(
            self.options.scheduler, self.options.predict, self.options.zero_terminal_snr, self.options.init
        )
        options = self.options
        self.process: DiffusionProcess = DiffusionProcess(
            config, weighting=options.weighting, gamma=options.gamma, power=options.timestep_power
        )
        self.condition_dropout = options.condition_dropout
        torch.manual_seed(recipe.train.seed)
        if self.options.init:
            self.trained = read_network(UNet2DConditionModel, self.options.init, "init")
        else:
            self.trained = new_network(UNet2DConditionModel, self.options.model)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, h, w) and image embeddings (B, D)."""
        _, rows = self.sampler.draw(update, first, batch_size)
        latents, embeds = self.encodings.of_rows(rows)
        return {"latents": latents, "embeds": embeds}

    def problem(self, batch: Batch) -> Problem:
        """Latents of pictures, told their image embeddings."""
        clean = batch["latents"].to(self.device)
        return Problem(clean, torch.randn_like(clean), call_network, *told(batch["embeds"].to(self.device)))

    def sheet(self, path: Path) -> None:
        """True pictures above what D makes of their embeddings."""
        _, rows = self.sampler.draw(0, 1_000_003, 16)
        _, embeds = self.encodings.of_rows(rows)
        latents = sample_latents(
            self.trained,
            sampler_of(self.process.config),
            embeds.to(self.device),
            num_inference_steps=15,
            guidance_scale=2.0,
            generator=torch.Generator(self.device).manual_seed(0),
        )
        write_rows(path, [self.sampler.pixels(rows), decode_latents(self.encodings.vae, latents)], scale=2)

    def export(self, folder: Path) -> None:
        """``unet/`` and ``scheduler/`` as diffusers writes them, float16."""
        save_half(self.trained, folder / "unet")
        sampler_of(self.process.config).save_pretrained(folder / "scheduler")


def build(recipe: Recipe, device: torch.device) -> DecoderStep:
    """The step a recipe with ``step = "decoder"`` trains."""
    return DecoderStep(recipe, device)
