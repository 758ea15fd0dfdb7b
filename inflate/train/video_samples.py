"""Videos made while a run goes on: an mp4 for each, one sheet of real and made frames, and the figures they give."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inflate.bases import Base, Encoding, joined
from inflate.bases.flow import at_resolution
from inflate.components import read_diffusers_component
from inflate.data.writing import write_contact_sheet, write_video
from inflate.evaluate.colour import colour_drift
from inflate.evaluate.motion import mean_frame_difference
from inflate.inflater import InflatedModel
from inflate.models.foreign import sample_frames
from inflate.sampling.noise import frame_noise
from inflate.schedulers import SCHEDULERS
from inflate.stages import StageSettings, stage_class
from inflate.train.encodings import ClipEncodings, on_device
from inflate.train.video_options import VideoOptions
from inflate.video import fold_frames, to_uint8, unfold_frames

_SHOWN_FRAMES = 8
_FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class SampleRequest:
    """One video to make: what the network is told (first sizes 1), how long, how fast and how large, and real frames
    to show above it, uint8 (F, H, W, 3)."""

    name: str
    told: Encoding
    unconditional: Encoding
    real: Callable[[], np.ndarray]
    fps: float
    num_frames: int
    size: tuple[int, int]  # height, width in pixels
    seed: int
    prompt: str = ""  # that was asked for, or the clip's caption; empty where there is none


def sample_settings(base: Base, options: VideoOptions) -> StageSettings:
    """How a run's videos are sampled: as `inflate generate` would, but for what the recipe says."""
    player = "" if base.family == "inflate" else base.family
    defaults = stage_class("decoder", player).defaults
    scale = options.sample_guidance or defaults.guidance_scale
    return replace(defaults, num_inference_steps=options.sample_steps, guidance_scale=scale)


class VideoSamples:
    """Makes the requested videos with the pipeline's own scheduler."""

    def __init__(
        self,
        base: Base,
        model: InflatedModel,
        encodings: ClipEncodings,
        requests: list[SampleRequest],
        settings: StageSettings,
    ) -> None:
        self.base, self.model, self.requests, self.settings = base, model, requests, settings
        self.autoencoder, self.conditioner = encodings.autoencoder, encodings.conditioner
        self.keep_encoders = not encodings.cached
        self.facts: dict[str, float] = {}

    def write(self, folder: Path, embedded: float) -> None:
        """``folder/NAME.mp4`` for each request and ``folder/sheet.png``; ``embedded`` is the guidance that a
        guidance-distilled network is told."""
        if not self.requests:
            return
        pairs = self._pairs(embedded)
        for place, (request, (_, made)) in enumerate(zip(self.requests, pairs, strict=True)):
            name = "".join(letter if letter.isalnum() else "-" for letter in request.name)[:60]
            write_video(folder / f"{place:02d}-{name}.mp4", made, request.fps, overwrite=True)
        self._write_sheet(folder / "sheet.png", pairs)

    def write_sheet(self, path: Path, embedded: float) -> None:
        """Real frames above made ones, for each request."""
        if self.requests:
            self._write_sheet(path, self._pairs(embedded))

    def _pairs(self, embedded: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Real and made frames of each request; notes the figures."""
        self.autoencoder.load(self.model.device, torch.float32)
        pairs = [(request.real(), self.make(request, embedded)) for request in self.requests]
        if not self.keep_encoders:
            self.autoencoder.release()
        self.facts = _facts(pairs)
        return pairs

    def _write_sheet(self, path: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
        rows = [frames for pair in pairs for frames in pair]
        labels = [f"{what}: {request.name}" for request in self.requests for what in ("real", "made")]
        write_contact_sheet(path, rows, labels, _SHOWN_FRAMES, overwrite=True)

    def make(self, request: SampleRequest, embedded: float) -> np.ndarray:
        """One video, uint8 (F, H, W, 3); the autoencoder is loaded."""
        height, width = request.size
        settings = self.settings
        if self.base.family == "flux":  # its guidance goes into the network, which is evaluated once
            embedded, settings = settings.guidance_scale, replace(settings, guidance_scale=1.0)
        guided = settings.guidance_scale != 1
        told = joined(request.unconditional, request.told) if guided else request.told
        device = self.model.device
        arguments = self.conditioner.arguments(on_device(told, device), height, width, embedded)
        factor = self.autoencoder.factor
        generator = torch.Generator().manual_seed(request.seed)
        picture = (self.autoencoder.channels, height // factor, width // factor)
        noise = frame_noise(self.model, 1, request.num_frames, generator, device, request.fps, None, picture)
        latents = sample_frames(self.model, self._scheduler(noise), arguments, noise, settings, request.fps, generator)
        with torch.no_grad():
            parts = [self.autoencoder.decode(part).cpu() for part in fold_frames(latents).split(_FRAMES_AT_ONCE)]
        return to_uint8(unfold_frames(torch.cat(parts), request.num_frames))[0]

    def _scheduler(self, noise: Tensor) -> Any:
        """The pipeline's own, with the steps that it takes for pictures of this size."""
        name = str(self.base.scheduler_config.get("_class_name", "DDPMScheduler"))
        library = "inflate" if name in SCHEDULERS else "diffusers"
        found = read_diffusers_component(self.base.parts["scheduler"], library, name, torch.float32)
        tokens = noise.shape[-2] * noise.shape[-1] // self.base.patch**2
        return at_resolution(found, tokens, self.base.family == "flux")


def _facts(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over pairs of real and made clips, of two frames or more."""
    measures: dict[str, Callable[[Tensor], float]] = {
        "motion": lambda video: float(mean_frame_difference(video)),
        "colour_drift": lambda video: colour_drift(video)[0].trend,
    }
    clips = [[torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255 for frames in pair] for pair in pairs]
    return {
        f"{what}_{name}": sum(measure(pair[side]) for pair in clips) / len(clips)
        for name, measure in measures.items()
        for side, what in enumerate(("data", "sample"))
        if clips
    }
