"""SR_l^t, the spatiotemporal super-resolution of Make-A-Video (arXiv:2209.14792, section 3.2): 64 px to 256 px.

The network is an image super-resolution network with temporal layers; without them it works frame by frame. A video of
any length goes through in overlapping windows. The noise of a frame follows from the seed and the frame's number alone,
so that two windows start from the same noise where they overlap, and their results are cross-faded there.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.sampling.windows import check_window
from inflate.stages import StageSettings, stage_generator
from superres.stage import SuperResolutionConfig, SuperResolutionStage


@dataclass(frozen=True)
class SpatiotemporalConfig(SuperResolutionConfig):
    """As :class:`SuperResolutionConfig`; ``window`` and ``overlap`` are in frames.

    ``shared_noise``: correlation of two frames' first noise, 0 to 1; None takes it from the network's scheme. Noise
    that a scheduler draws in its steps is each frame's own.
    """

    # Of 16 frames a larger tile is slower for each pixel: 1.2 us at 384 px, 1.8 us at 512 px (bundled:emoji, one core).
    tile: int = 384
    window: int = 16
    overlap: int = 4
    shared_noise: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.window, self.overlap)
        if self.shared_noise is not None and not 0 <= self.shared_noise <= 1:
            raise InputError(f"shared_noise must lie between 0 and 1, got {self.shared_noise}.")


class SpatiotemporalStage(SuperResolutionStage):
    """SR_l^t; ``sr_last_unet``, if there is one, takes the last step, as Karlo's ``super_res_last``."""

    name: ClassVar[str] = "super_resolution"
    defaults = StageSettings(num_inference_steps=4)
    config_class = SpatiotemporalConfig
    unet_role: ClassVar[str] = "sr_unet"
    scheduler_role: ClassVar[str] = "sr_scheduler"
    last_unet_role: ClassVar[str] = "sr_last_unet"
    config: SpatiotemporalConfig

    def window(self) -> tuple[int, int]:
        """That of the config for a network with temporal layers, single frames otherwise."""
        return (self.config.window, self.config.overlap) if self.has_temporal_layers() else (1, 0)

    def generators(self, seed: int, first: int, count: int, place: str = "") -> list[torch.Generator]:
        """From the seed and each frame's number."""
        return [stage_generator(seed, f"{self.name}/{first + index}{place}") for index in range(count)]

    def share(self) -> float:
        """The config's, or the one that the network's scheme was trained with."""
        if self.config.shared_noise is not None:
            return self.config.shared_noise
        network = self.components[self.unet_role]
        return network.scheme.shared_noise if isinstance(network, InflatedModel) else 0.0

    def low_size(self) -> int | None:
        """Side of the frames it was trained to enlarge, in pixels; None where the network's config does not say it."""
        config = self.component_config(self.unet_role)
        side, patch = config.get("sample_size"), math.isqrt(int(config.get("out_channels", 3)) // 3)
        return side * patch // self.config.scale if isinstance(side, int) else None

    def without_temporal_layers(self) -> "SpatiotemporalStage":
        """The same stage, of the same weights and noise, with the image model alone: what temporal layers are for.

        The stage must be loaded.
        """
        components = {
            role: part.image_model if isinstance(part, InflatedModel) else part
            for role, part in self.components.items()
        }
        config = replace(self.config, shared_noise=self.share())
        return SpatiotemporalStage(components, defaults=self.defaults, config=config)
