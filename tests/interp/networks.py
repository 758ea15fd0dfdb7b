"""Tiny interpolation models: a real one, and one that knows the answer."""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from inflate.inflater import SCHEMES, InflatedModel, inflate
from interp.conditioning import interpolation_scheme, start_from_decoder
from tests.models.tiny_family import WIDTH, tiny_unet, tiny_video_unet

SCHEDULE: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solver(**changes: Any) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(**{**SCHEDULE, "timestep_spacing": "trailing", **changes})


def untrained() -> InflatedModel:
    """An interpolation model just started from a D^t whose temporal layers do something."""
    decoder = tiny_video_unet()
    return start_from_decoder(tiny_unet(), decoder.scheme, decoder.num_frames, decoder.temporal_state_dict()).eval()


def trained(channels: int = 4, size: int = 4) -> InflatedModel:
    """An interpolation model of 4 frames in which every temporal weight counts."""
    fresh = inflate(tiny_unet(channels, size), num_frames=4)
    model = start_from_decoder(tiny_unet(channels, size), fresh.scheme, 4, fresh.temporal_state_dict()).eval()
    with torch.no_grad():
        for parameter in model.temporal_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(6))
    return model


def numbered_video(num_frames: int, batch: int = 1, size: int = 4) -> Tensor:
    """(B, 3, F, size, size) at random, but the first pixel of frame i, which is i / 100."""
    video = torch.rand(batch, 3, num_frames, size, size, generator=seeded(1)) * 1.8 - 0.9
    video[:, 0, :, 0, 0] = torch.arange(num_frames) / 100
    return video


class Oracle:
    """Answers v for a numbered video in pixels, and keeps what it was given."""

    def __init__(self, truth: Tensor, num_frames: int = 16, shared_noise: float = 0.0) -> None:
        self.truth, self.num_frames = truth, num_frames
        self.scheme = interpolation_scheme(SCHEMES["make-a-video"], 3).changed(shared_noise=shared_noise)
        self.config = FrozenDict(in_channels=3, projection_class_embeddings_input_dim=WIDTH)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.alphas_cumprod = solver().alphas_cumprod.double()
        self.calls: list[Any] = []

    def __call__(self, inputs: Tensor, timestep: Tensor, **conditioning: Any) -> Any:
        noisy, known, masked = inputs[:, :3], inputs[:, 3:6], inputs[:, 6]
        places = self._places(known, masked)
        self.calls.append(SimpleNamespace(noisy=noisy, known=known, masked=masked, places=places, **conditioning))
        kept = self.alphas_cumprod[timestep.long()]
        clean = self.truth[:, :, places].double().repeat(len(inputs) // len(self.truth), 1, 1, 1, 1)
        return SimpleNamespace(sample=((kept.sqrt() * noisy.double() - clean) / (1 - kept).sqrt()).float())

    def _places(self, known: Tensor, masked: Tensor) -> list[int]:
        """Numbers of the window's frames in the video, from what its known frames show."""
        told = [index for index in range(known.shape[2]) if not bool(masked[0, index].any())]
        shown = [round(float(known[0, 0, index, 0, 0]) * 100) for index in told]
        stride = (shown[-1] - shown[0]) / (told[-1] - told[0]) if len(told) > 1 else 1.0
        return [round(shown[0] + (index - told[0]) * stride) for index in range(known.shape[2])]
