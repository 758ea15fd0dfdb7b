"""Training the image decoder D: CLIP image embedding -> picture, in the autoencoder's latents, v-prediction."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor

from inflate.data import FrameCache
from inflate.diffusion.noise import mix_noise
from inflate.diffusion.weights import signal_to_noise, v_weight
from inflate.errors import InputError
from inflate.inflater import Scheme
from inflate.models.clip import TextImageEncoder
from inflate.models.decoder import decode_latents, image_conditioning, sample_latents
from inflate.train.export import save_half
from inflate.train.pictures import PictureSampler, encode_all, open_data, weights_key
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss

SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


@dataclass(frozen=True)
class DecoderOptions:
    """``clip`` and ``vae``: folders; ``model``: UNet2DConditionModel's arguments, or ``init``: a folder to start from;
    ``weighting`` as in ``v_weight``; ``timestep_power`` as in ``NoiseSchedule``."""

    clip: str
    vae: str
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    condition_dropout: float = 0.1
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0


class Encodings:
    """Latents and CLIP image embeddings of every frame of a cache, computed once by the frozen encoders."""

    def __init__(self, cache: FrameCache, clip: str, vae: str, device: torch.device) -> None:
        self.vae: Any = AutoencoderDC.from_pretrained(vae, local_files_only=True)
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


def drop_conditions(embeds: Tensor, share: float) -> Tensor:
    """Zero the embedding of a random ``share`` of the batch (B, D), for classifier-free guidance."""
    kept = torch.rand(len(embeds), 1, device=embeds.device) >= share
    return embeds * kept


class NoiseSchedule:
    """Forward process and v-loss on diffusers' schedule, for latents whose first dimension is the batch.

    Timesteps are ``T (1 - u^power)`` for uniform ``u``: 1 draws them evenly, more than 1 favours high noise, where the
    shape of a thing is decided.
    """

    def __init__(self, weighting: str, gamma: float, device: torch.device, power: float = 1.0) -> None:
        if power <= 0:
            raise InputError(f"options.timestep_power is {power}; it must be above 0.")
        self.power = power
        self.scheduler: Any = DDPMScheduler(**SCHEDULE)
        self.weighting, self.gamma = weighting, gamma
        self.snr = signal_to_noise(self.scheduler.alphas_cumprod.double()).float().to(device)
        self.steps = int(self.scheduler.config["num_train_timesteps"])

    def noised(self, clean: Tensor, shared_noise: float | Tensor = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, the v target, and the timesteps (B,), one per batch element.

        ``shared_noise`` is the correlation of the frames' noise, for videos (B, c, F, h, w), or one for each (B,).
        """
        share = 1 - torch.rand(len(clean), device=clean.device) ** self.power
        timestep = (share * self.steps).long().clamp(0, self.steps - 1)
        noise = torch.randn_like(clean)
        if isinstance(shared_noise, Tensor) or shared_noise:
            noise = mix_noise(noise, torch.randn_like(clean[:, :, :1]), shared_noise)
        noisy = self.scheduler.add_noise(clean, noise, timestep)
        return noisy, self.scheduler.get_velocity(clean, noise, timestep), timestep

    def loss(self, predicted: Tensor, target: Tensor, timestep: Tensor) -> Tensor:
        """Weighted mean-squared error of v, a scalar."""
        error = (predicted.float() - target).square().flatten(1).mean(1)
        return (error * v_weight(self.snr[timestep], self.weighting, self.gamma)).mean()


def noise_shares(scheme: Scheme, fps: Tensor) -> Tensor:
    """The correlation of each clip's noise (B,) at its frame rate (B,)."""
    return torch.tensor([scheme.noise_share(rate) for rate in fps.tolist()])


class DecoderStep:
    """The TrainStep of the image decoder D."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(DecoderOptions, recipe.options, "options")
        self.device = device
        self.cache = open_data(recipe.data)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.encodings = Encodings(self.cache, self.options.clip, self.options.vae, device)
        self.schedule = NoiseSchedule(self.options.weighting, self.options.gamma, device, self.options.timestep_power)
        torch.manual_seed(recipe.train.seed)
        if self.options.init:
            self.trained = UNet2DConditionModel.from_pretrained(
                self.options.init, local_files_only=True, torch_dtype=torch.float32
            )
        else:
            try:
                self.trained = UNet2DConditionModel(**self.options.model)
            except TypeError as error:
                raise InputError(f"options.model does not fit UNet2DConditionModel: {error}.") from error

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, h, w) and image embeddings (B, D)."""
        _, rows = self.sampler.draw(update, first, batch_size)
        latents, embeds = self.encodings.of_rows(rows)
        return {"latents": latents, "embeds": embeds}

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted v-loss."""
        noisy, target, timestep = self.schedule.noised(batch["latents"].to(self.device))
        embeds = drop_conditions(batch["embeds"].to(self.device), self.options.condition_dropout)
        predicted = self.trained(noisy, timestep, **image_conditioning(embeds)).sample
        return StepLoss(self.schedule.loss(predicted, target, timestep))

    def sheet(self, path: Path) -> None:
        """True pictures above what D makes of their embeddings."""
        _, rows = self.sampler.draw(0, 1_000_003, 16)
        _, embeds = self.encodings.of_rows(rows)
        latents = sample_latents(
            self.trained,
            DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing"),
            embeds.to(self.device),
            num_inference_steps=15,
            guidance_scale=2.0,
            generator=torch.Generator(self.device).manual_seed(0),
        )
        write_rows(path, [self.sampler.pixels(rows), decode_latents(self.encodings.vae, latents)], scale=2)

    def export(self, folder: Path) -> None:
        """``unet/`` and ``scheduler/`` as diffusers writes them, float16."""
        save_half(self.trained, folder / "unet")
        DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing").save_pretrained(folder / "scheduler")


def build(recipe: Recipe, device: torch.device) -> DecoderStep:
    """The step a recipe with ``step = "decoder"`` trains."""
    return DecoderStep(recipe, device)
