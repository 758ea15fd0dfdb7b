"""Fine-tuning D^t: the image decoder with temporal layers, on clips without captions.

Make-A-Video, arXiv:2209.14792, section 3.4. Condition: the CLIP image embedding of the clip's middle frame; frame rate
from the curriculum, high rates first. By default only the temporal layers and the frame-rate embedding learn.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from inflate.checkpoint import load, save
from inflate.checkpoint.narrowing import narrow_copy
from inflate.data import ClipSampler
from inflate.errors import InputError
from inflate.inflater import inflate, resolve_scheme
from inflate.models.decoder import decode_latents, sample_latents
from inflate.train.choices import check_choices
from inflate.train.denoising import DenoisingStep, Problem, frame_noise
from inflate.train.networks import read_network
from inflate.train.noising import sampler_of, schedule_of
from inflate.train.pictures import open_clips, to_model_range
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch
from inflate.train.steps.decoder import Encodings, call_network, told
from inflate.video import unfold_frames


@dataclass(frozen=True)
class VideoDecoderOptions:
    """``clip``, ``vae``, ``image_model``: folders; ``trainable``: ``temporal`` or ``all``.

    ``init``: an inflated folder whose temporal weights to start from; ``shared_noise``: correlation of frames' noise;
    ``noise_time``: seconds over which it falls by e, in place of one correlation for all frame rates;
    ``timestep_power`` as in ``DiffusionProcess``; ``scheduler``, ``predict`` and ``zero_terminal_snr`` as in
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

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise InputError(f"options.num_frames is {self.num_frames}; a clip has at least 2 frames.")
        check_choices(self)


class VideoDecoderStep(DenoisingStep):
    """The TrainStep of the spatiotemporal decoder D^t."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(VideoDecoderOptions, recipe.options, "options")
        self.device = device
        self.cache = open_clips(recipe.data)
        frames, steps = self.options.num_frames, recipe.train.steps
        self.sampler = ClipSampler(self.cache, frames, steps, recipe.train.seed, split=recipe.data.split)
        self.encodings = Encodings(self.cache, self.options.clip, self.options.vae, device)
        options = self.options
        config = schedule_of(options.scheduler, options.predict, options.zero_terminal_snr, options.image_model)
        self.process: DiffusionProcess = DiffusionProcess(
            config, weighting=options.weighting, gamma=options.gamma, power=options.timestep_power
        )
        self.condition_dropout = options.condition_dropout
        torch.manual_seed(recipe.train.seed)
        image_model = read_network(UNet2DConditionModel, self.options.image_model, "image_model")
        noise = {"shared_noise": self.options.shared_noise, "noise_time": self.options.noise_time}
        scheme = resolve_scheme(self.options.scheme).changed(**noise)
        before = None
        if self.options.init:
            before = load(self.options.init, device=torch.device("cpu"), dtype=torch.float32)
            scheme = scheme.changed(guidance_range=before.scheme.guidance_range)
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

    def problem(self, batch: Batch) -> Problem:
        """Latents of clips, told their middle frame's image embedding and their frame rate."""
        clean, fps = batch["latents"].to(self.device), {"fps": batch["fps"].to(self.device)}
        given, zero = told(batch["embeds"].to(self.device))
        noise = frame_noise(clean, self.trained.scheme, batch["fps"])
        return Problem(clean, noise, call_network, given | fps, zero | fps)

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
                sampler_of(self.process.config),
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
        save(narrow_copy(self.trained, torch.float16), folder / "unet", force=True)
        sampler_of(self.process.config).save_pretrained(folder / "scheduler")


def build(recipe: Recipe, device: torch.device) -> VideoDecoderStep:
    """The step a recipe with ``step = "video-decoder"`` trains."""
    return VideoDecoderStep(recipe, device)
