"""Fine-tuning D^t: the image decoder with temporal layers, on clips without captions.

Make-A-Video, arXiv:2209.14792, section 3.4. Condition: the CLIP image embedding of the clip's middle frame; frame rate
from the curriculum, high rates first. By default only the temporal layers and the frame-rate embedding learn.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from inflate.checkpoint import load, save
from inflate.data import ClipSampler
from inflate.errors import InputError
from inflate.inflater import inflate, resolve_scheme
from inflate.models.decoder import decode_latents, image_conditioning, sample_latents
from inflate.train.pictures import open_data, to_model_range
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss
from inflate.train.steps.decoder import SCHEDULE, Encodings, NoiseSchedule, drop_conditions, noise_shares
from inflate.video import unfold_frames


@dataclass(frozen=True)
class VideoDecoderOptions:
    """``clip``, ``vae``, ``image_model``: folders; ``trainable``: ``temporal`` or ``all``.

    ``init``: an inflated folder whose temporal weights to start from; ``shared_noise``: correlation of frames' noise;
    ``noise_time``: seconds over which it falls by e, in place of one correlation for all frame rates;
    ``timestep_power`` as in ``NoiseSchedule``.
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
        self.schedule = NoiseSchedule(self.options.weighting, self.options.gamma, device, self.options.timestep_power)
        torch.manual_seed(recipe.train.seed)
        image_model = UNet2DConditionModel.from_pretrained(
            self.options.image_model, local_files_only=True, torch_dtype=torch.float32
        )
        noise = {"shared_noise": self.options.shared_noise, "noise_time": self.options.noise_time}
        scheme = replace(resolve_scheme(self.options.scheme), **noise)
        self.trained = inflate(image_model, scheme=scheme, num_frames=frames)
        if self.options.init:
            before = load(self.options.init, device=torch.device("cpu"), dtype=torch.float32)
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
                DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing"),
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
        """``unet/``: the image model as it was (or as trained) with ``temporal.safetensors`` beside it, float16."""
        save(copy.deepcopy(self.trained).half(), folder / "unet", force=True)


def build(recipe: Recipe, device: torch.device) -> VideoDecoderStep:
    """The step a recipe with ``step = "video-decoder"`` trains."""
    return VideoDecoderStep(recipe, device)
