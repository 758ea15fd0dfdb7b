"""SR_h by Stable Diffusion's x4 upscaler, frame by frame: a latent network that sees the low-resolution frame itself.

The latents have the low-resolution frame's size, and the noised frame is concatenated after them; the level of its
noise is the network's class. As in :mod:`superres.spatial` every frame starts from one and the same noise, the
low-resolution frame's noise included, so that equal frames come out equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.parts import read_part, write_part
from inflate.bases.prediction import predict_channels
from inflate.bases.texts import encode_clip_text
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.sampling.loop import denoise
from inflate.stages import StageSettings
from superres.places import Place
from superres.spatial import SpatialConfig, SpatialStage
from superres.stage import Job, padded
from superres.tiling import blend_tiles


@dataclass(frozen=True)
class StableDiffusionX4Config(SpatialConfig):
    """As :class:`SpatialConfig`, for a network that diffuses latents.

    ``max_noise_level``: the highest of the network's noise levels that it was trained on. ``decode_tile``: side in
    pixels of the largest picture that the autoencoder decodes in one piece; larger ones it decodes in tiles.
    """

    max_noise_level: int = 350
    decode_tile: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.residual_std:
            raise InputError("The x4 upscaler diffuses pictures, not residuals; leave residual_std at 0.")
        if not 0 <= self.max_noise_level <= 1000:
            raise InputError(f"max_noise_level must lie between 0 and 1000, got {self.max_noise_level}.")
        if self.decode_tile < 64:
            raise InputError(f"decode_tile must be at least 64 px, got {self.decode_tile}.")


class StableDiffusionX4Stage(SpatialStage):
    """SR_h of Stable Diffusion.

    It is told the empty text, of which guidance has nothing to make, so ``guidance_scale`` has no effect. The default
    noise level is the image pipeline's, 20 of 1000.
    """

    player: ClassVar[str] = "stable-diffusion-x4"
    defaults = StageSettings(num_inference_steps=50, noise_level=0.02)
    config_class = StableDiffusionX4Config
    config: StableDiffusionX4Config

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The network as in our families; the rest as it comes."""
        if role == self.unet_role:
            return super().read(role, folder, library, class_name, dtype)
        return read_part(folder, library, class_name, dtype, self.variant)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        return (
            super().write(component, folder) if isinstance(component, InflatedModel) else write_part(component, folder)
        )

    def count_tiles(self, height: int, width: int) -> int:
        """One: latents of a whole picture are small, and its tiles are blended at every step."""
        return 1

    @torch.no_grad()
    def _enlarged(
        self,
        frames: Tensor,
        first: int,
        job: Job,
        place: Place,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        """One frame (1, 3, h, w) -> (1, 3, 4 h, 4 w), ``first`` being its number; ``place`` is the whole picture."""
        network, scheduler = self.components["upscaler_unet"], self.components["upscaler_scheduler"]
        low_scheduler, vae = self.components["upscaler_low_res_scheduler"], self.components["upscaler_vae"]
        self._check_layout(network, vae)
        level = self._level(network, job.settings.noise_level)
        [generator] = self.generators(job.seed, first, len(frames))
        low = padded(frames.to(network.device, torch.float32), 2 ** (len(network.config.block_out_channels) - 1))
        levels = torch.tensor([level], device=low.device)
        grain = torch.randn(low.shape, generator=generator).to(low.device)
        beside = low_scheduler.add_noise(low, grain, levels)
        noise = torch.randn((1, vae.config.latent_channels, *low.shape[-2:]), generator=generator).to(low.device)
        text = encode_clip_text(self.components["upscaler_text_encoder"], self.components["upscaler_tokenizer"], "")
        told = {"encoder_hidden_states": text.text_hidden_states, "class_labels": levels}

        def predict(sample: Tensor, timestep: Tensor) -> Tensor:
            def on_tile(part: Tensor, condition: Tensor) -> Tensor:
                return predict_channels(network, torch.cat([part, condition], 1)[:, :, None], timestep, told, job.fps)[
                    :, :, 0
                ]

            tile, overlap = self.config.tile // self.config.scale, self.config.tile_overlap // self.config.scale
            return blend_tiles(on_tile, sample, beside, max(1, tile), overlap, multiple=8)

        latents = denoise(scheduler, predict, noise, job.settings.num_inference_steps, generator, on_step)
        height, width = (side * self.config.scale for side in frames.shape[-2:])
        return self._decoded(vae, latents)[..., :height, :width].clamp(-1, 1).cpu()

    def _level(self, network: Any, share: float) -> int:
        """The number of the noise level, of a share from 0 to 1 of those the network has."""
        levels = int(network.config.num_class_embeds or 0)
        level = min(round(share * levels), max(0, levels - 1))
        if level > self.config.max_noise_level:
            highest = self.config.max_noise_level / max(1, levels)
            raise InputError(f"noise_level is {share:g}; this upscaler was trained for up to {highest:g}.")
        return level

    def _check_layout(self, network: Any, vae: Any) -> None:
        taken, given = int(network.config.in_channels), int(vae.config.latent_channels) + 3
        if taken != given or not network.config.num_class_embeds:
            raise InputError(
                f"The upscaler's network takes {taken} channels and {network.config.num_class_embeds} noise levels; an "
                f"x4 upscaler with this autoencoder has {given} (latents and the low-resolution frame) and some levels."
            )
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        if scale != self.config.scale:
            raise InputError(f"The upscaler's autoencoder enlarges {scale} times, but scale is {self.config.scale}.")

    def _decoded(self, vae: Any, latents: Tensor) -> Tensor:
        """Latents (1, c, h, w) -> pixels (1, 3, 4 h, 4 w), float32."""
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(torch.float32)  # it overflows in float16
        if max(latents.shape[-2:]) * self.config.scale > self.config.decode_tile:
            vae.enable_tiling()
            vae.tile_sample_min_size = self.config.decode_tile
            vae.tile_latent_min_size = self.config.decode_tile // self.config.scale
        else:
            vae.disable_tiling()
        return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample.float()
