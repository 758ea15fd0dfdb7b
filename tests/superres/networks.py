"""Tiny super-resolution networks: real ones, local ones, and ones that know the answer."""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from torch import nn
from torch.nn import functional

from inflate.inflater import InflatedModel, inflate

SCHEDULE: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solver() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing")


def tiny_unet(patch: int = 2, seed: int = 0, **changes: Any) -> UNet2DModel:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 6 * patch**2,
        "out_channels": 3 * patch**2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "mid_block_type": None,
        "add_attention": False,
        "norm_num_groups": 4,
        "class_embed_type": "timestep",
    }
    return UNet2DModel(**(settings | changes)).eval()


def karlo_unet(seed: int = 0) -> UNet2DModel:
    """Karlo's super_res_first at a tiny width."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=16,
        in_channels=6,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        add_attention=False,
        norm_num_groups=4,
    ).eval()


def tiny_video_unet(patch: int = 2, seed: int = 0, scheme: Any = "imagen-video-sr") -> InflatedModel:
    """Inflated, its temporal layers no longer the identity."""
    model = inflate(tiny_unet(patch, seed), scheme, num_frames=4)
    with torch.no_grad():
        for parameter in model.temporal_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(4))
    return model.eval()


class Network(nn.Module):
    """The surface of a UNet2DModel without noise levels, for networks of three lines."""

    def __init__(self, patch: int = 1) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            in_channels=6 * patch**2, out_channels=3 * patch**2, block_out_channels=(1,), class_embed_type=None
        )
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.patch = patch

    def forward(self, inputs: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor | None = None) -> Any:
        half = inputs.shape[1] // 2
        noisy, low = (functional.pixel_shuffle(part, self.patch) for part in (inputs[:, :half], inputs[:, half:]))
        made = self.answer(noisy, low, timestep)
        return SimpleNamespace(sample=functional.pixel_unshuffle(made, self.patch))

    def answer(self, noisy: torch.Tensor, low: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a subclass answers")


class Oracle(Network):
    """Answers v for a clean sample x that ``clean`` tells from the enlarged frames: v = (alpha z - x) / sigma."""

    def __init__(self, clean: Any, patch: int = 1) -> None:
        super().__init__(patch)
        self.clean = clean
        self.alphas_cumprod = solver().alphas_cumprod.double()

    def answer(self, noisy: torch.Tensor, low: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        kept = self.alphas_cumprod[timestep.long()]
        made = (kept.sqrt() * noisy.double() - self.clean(low).double()) / (1 - kept).sqrt()
        return made.float()


class Local(Network):
    """A 3 x 3 convolution: what it says of a pixel depends on its neighbours only."""

    def __init__(self, patch: int = 2) -> None:
        super().__init__(patch)
        torch.manual_seed(7)
        self.convolution = nn.Conv2d(6 * patch**2, 3 * patch**2, 3, padding=1)

    def forward(self, inputs: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor | None = None) -> Any:
        return SimpleNamespace(sample=self.convolution(inputs))
