"""Fine-tuning D^t: the image decoder with temporal layers, on clips without captions.

Make-A-Video, arXiv:2209.14792, section 3.4. Condition: the CLIP image embedding of the clip's middle frame; frame rate
from the curriculum, high rates first. By default only the temporal layers and the frame-rate embedding learn.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from inflate.checkpoint import load, save
from inflate.data import ClipSampler
from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError
from inflate.inflater import inflate, resolve_scheme
from inflate.models.decoder import decode_latents, image_conditioning, sample_latents
from inflate.train.noising import NoiseSchedule, sampler_of, schedule_of
from inflate.train.pictures import open_data, to_model_range
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, Problem, StepLoss
from inflate.train.steps.decoder import Encodings, drop_conditions, noise_shares
from inflate.video import unfold_frames


@dataclass(frozen=True)
class VideoDecoderOptions:
    """``clip``, ``vae``, ``image_model``: folders; ``trainable``: ``temporal`` or ``all``.

    ``init``: an inflated folder whose temporal weights to start from; ``shared_noise``: correlation of frames' noise;
    ``noise_time``: seconds over which it falls by e, in place of one correlation for all frame rates;
    ``timestep_power`` as in ``NoiseSchedule``; ``scheduler``, ``predict`` and ``zero_terminal_snr`` as in
    ``schedule_of``, with ``trainable = "all"`` where they change what the network predicts.
    """

    clip: str
    vae: str
    image_model: str
    init: str = ""
    scheme: str = "make-a-video"
    shared_noise: float = 0.0
    noise_time: float = 0.0
    num_frames: int = 16
    trainable: str = "temporal"
    condition_dropout: float = 0.1
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0
    scheduler: str = ""
    predict: str = ""
    zero_terminal_snr: bool = False


class VideoDecoderStep:
    """The TrainStep of the spatiotemporal decoder D^t."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(VideoDecoderOptions, recipe.options, "options")
        if self.options.trainable not in ("temporal", "all"):
            raise InputError(f"options.trainable is {self.options.trainable!r}; use 'temporal' or 'all'.")
        self.device = device
        self.cache = open_data(recipe.data)
        frames, steps = self.options.num_frames, recipe.train.steps
        self.sampler = ClipSampler(self.cache, frames, steps, recipe.train.seed, split=recipe.data.split)
        self.encodings = Encodings(self.cache, self.options.clip, self.options.vae, device)
        options = self.options
        config = schedule_of(options.scheduler, options.predict, options.zero_terminal_snr, options.image_model)
        self.schedule = NoiseSchedule(options.weighting, options.gamma, device, options.timestep_power, config)
        torch.manual_seed(recipe.train.seed)
        image_model = UNet2DConditionModel.from_pretrained(
            self.options.image_model, local_files_only=True, torch_dtype=torch.float32
        )
        noise = {"shared_noise": self.options.shared_noise, "noise_time": self.options.noise_time}
        scheme = replace(resolve_scheme(self.options.scheme), **noise)
        before = None
        if self.options.init:
            before = load(self.options.init, device=torch.device("cpu"), dtype=torch.float32)
            scheme = replace(scheme, guidance_range=before.scheme.guidance_range)
        self.trained = inflate(image_model, scheme=scheme, num_frames=frames)
        if before is not None:
            self.trained.load_temporal_state_dict(before.temporal_state_dict())
        if self.options.trainable == "temporal":
            self.trained.freeze_image_model()

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, F, h, w), middle-frame embeddings (B, D) and frame rates (B,)."""
        draws = [self.sampler.sample(update, first + index) for index in range(batch_size)]
        rows = np.concatenate([draw.frame_indices for draw in draws])
        latents, embeds = self.encodings.of_rows(rows)
        frames = self.options.num_frames
        middle = rearrange(embeds, "(b f) d -> b f d", f=frames)[:, frames // 2]
        fps = torch.tensor([draw.fps for draw in draws], dtype=torch.float32)
        return {"latents": unfold_frames(latents, frames).contiguous(), "embeds": middle, "fps": fps}

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted v-loss over all frames; one timestep per clip."""
        share = noise_shares(self.trained.scheme, batch["fps"])
        noisy, target, timestep = self.schedule.noised(batch["latents"].to(self.device), share)
        embeds = drop_conditions(batch["embeds"].to(self.device), self.options.condition_dropout)
        fps = batch["fps"].to(self.device)
        predicted = self.trained(noisy, timestep, fps=fps, **image_conditioning(embeds)).sample
        return StepLoss(self.schedule.loss(predicted, target, timestep))

    def problem(self, batch: Batch) -> Problem:
        """The same batch for distillation."""
        clean, embeds = batch["latents"].to(self.device), batch["embeds"].to(self.device)
        shared = torch.randn_like(clean[:, :, :1])
        fps = {"fps": batch["fps"].to(self.device)}
        return Problem(
            clean,
            mix_noise(torch.randn_like(clean), shared, noise_shares(self.trained.scheme, batch["fps"])),
            _call,
            image_conditioning(embeds) | fps,
            image_conditioning(torch.zeros_like(embeds)) | fps,
        )

    def sheet(self, path: Path) -> None:
        """For two clips: eight of the true frames above eight of what D^t makes of the middle frame's embedding."""
        rows: list[Tensor] = []
        frames = self.options.num_frames
        shown = np.linspace(0, frames - 1, min(8, frames)).round().astype(int)
        for index in range(2):
            draw = self.sampler.sample(0, 1_000_003 + index)
            _, embeds = self.encodings.of_rows(draw.frame_indices)
            latents = sample_latents(
                self.trained,
                sampler_of(self.schedule.config),
                embeds[frames // 2 : frames // 2 + 1].to(self.device),
                num_frames=frames,
                fps=draw.fps,
                num_inference_steps=15,
                guidance_scale=2.0,
                generator=torch.Generator(self.device).manual_seed(index),
            )
            made = decode_latents(self.encodings.vae, latents)
            rows += [to_model_range(self.cache.frames[draw.frame_indices[shown]]), made[0].transpose(0, 1)[shown]]
        write_rows(path, rows, scale=2)

    def export(self, folder: Path) -> None:
        """``unet/``: the image model as it was (or as trained) with ``temporal.safetensors`` beside it, float16;
        ``scheduler/``."""
        save(copy.deepcopy(self.trained).half(), folder / "unet", force=True)
        sampler_of(self.schedule.config).save_pretrained(folder / "scheduler")


def _call(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
    return network(noisy, timestep, **conditions, **more).sample


def build(recipe: Recipe, device: torch.device) -> VideoDecoderStep:
    """The step a recipe with ``step = "video-decoder"`` trains."""
    return VideoDecoderStep(recipe, device)
