"""SR_h, the spatial super-resolution of Make-A-Video (arXiv:2209.14792, section 3.2), frame by frame.

Every frame starts from one and the same noise, and a scheduler that draws noise at its steps draws the same for every
frame: what is equal in two low-resolution frames comes out alike, and equal frames come out equal, bit for bit. Frames
go through the network one at a time, because a convolution may round differently in a larger batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from inflate.stages import StageSettings, stage_generator
from superres.stage import SuperResolutionConfig, SuperResolutionStage


@dataclass(frozen=True)
class SpatialConfig(SuperResolutionConfig):
    """As :class:`SuperResolutionConfig`; ``shared_noise`` False draws each frame's noise anew, for comparison."""

    shared_noise: bool = True


class SpatialStage(SuperResolutionStage):
    """SR_h: every frame by itself, all from one noise."""

    name: ClassVar[str] = "upscaler"
    defaults = StageSettings(num_inference_steps=4)
    config_class = SpatialConfig
    unet_role: ClassVar[str] = "upscaler_unet"
    scheduler_role: ClassVar[str] = "upscaler_scheduler"
    config: SpatialConfig

    def window(self) -> tuple[int, int]:
        """Single frames."""
        return 1, 0

    def generators(self, seed: int, first: int, count: int, place: str = "") -> list[torch.Generator]:
        """From the seed alone, or with each frame's number where noise is not shared."""
        names = [self.name if self.config.shared_noise else f"{self.name}/{first + index}" for index in range(count)]
        return [stage_generator(seed, name + place) for name in names]
