"""Stable Diffusion 1.x, 2.x and XL as the decoder: text to frames without a prior, inflated or frame by frame."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.conditioner import Conditioner
from inflate.bases.conditioners.stable_diffusion import StableDiffusionConditioner, StableDiffusionXLConditioner
from inflate.diffusion.latent_motion import renoised, translated_frames
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.beginning import Beginning
from inflate.models.text_decoder import TextDecoderConfig, TextDecoderStage
from inflate.sampling.denoiser import Told, check_both
from inflate.sampling.loop import OnSample
from inflate.stages import StageSettings

# Text2Video-Zero, arXiv:2303.13439: pictures move between T' = 881 and T = 941 of 1,000 timesteps.
_MOVE_FROM, _MOVE_TO = 0.1, 0.04  # shares of the steps that come before


@dataclass(frozen=True)
class StableDiffusionConfig(TextDecoderConfig):
    """Of Stable Diffusion as the decoder; as :class:`TextDecoderConfig`.

    ``motion_x``, ``motion_y``: for the scheme text2video-zero, how far the picture moves to the right and down from one
    frame to the next, in pixels of a picture of 512 (the paper's lambda is 12).
    """

    motion_x: float = 12.0
    motion_y: float = 12.0


@dataclass(frozen=True)
class StableDiffusionXLConfig(StableDiffusionConfig):
    """As :class:`StableDiffusionConfig`.

    ``force_zeros_for_empty_prompt``: whether guidance without a negative prompt goes away from zeros; the pipeline's
    index says it.
    """

    force_zeros_for_empty_prompt: bool = True


class StableDiffusionDecoderStage(TextDecoderStage):
    """D^t of Stable Diffusion: it reads the prompt itself, so the chain has no prior."""

    player: ClassVar[str] = "stable-diffusion"
    title: ClassVar[str] = "Stable Diffusion"
    lora_pipeline: ClassVar[str] = "StableDiffusionPipeline"
    conditioner_class: ClassVar[type[Conditioner]] = StableDiffusionConditioner
    defaults = StageSettings(num_inference_steps=25, guidance_scale=7.5)
    config_class = StableDiffusionConfig
    config: StableDiffusionConfig

    def guidance_inside(self, settings: StageSettings) -> tuple[StageSettings, float | None]:
        """The scale goes into a network of latent consistency, which is evaluated once."""
        if not self.component_config("unet").get("time_cond_proj_dim"):
            return settings, None
        check_both(settings, "this Stable Diffusion")
        return replace(settings, guidance_scale=1.0), settings.guidance_scale

    def sampling(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        on_step: OnSample,
        begin: Beginning | None = None,
    ) -> Callable[[], Tensor]:
        """As :meth:`ForeignDecoderStage.sampling`, or by the rule of Text2Video-Zero."""
        if not _without_training(self.components["unet"]):
            return super().sampling(told, noise, settings, fps, generator, on_step, begin)
        if begin is not None:
            raise InputError("text2video-zero draws its first frame from noise; leave the init image out.")
        return partial(self._draw_moving, told, noise, settings, fps, generator, on_step)

    def _draw_moving(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        on_step: OnSample,
    ) -> Tensor:
        """Text2Video-Zero: one picture is drawn to T', moved, noised back to T, and all frames go on from there.

        All frames have the first one's noise, so that before T they are one picture.
        """
        noise = noise[:, :, :1].expand_as(noise)
        late, early = _steps_before(settings.num_inference_steps)
        if early == late:
            raise InputError(
                f"text2video-zero moves its picture between two sampler steps; {settings.num_inference_steps} "
                "are too few, use at least 3"
            )
        at = self._first_frame_at(told, noise[:, :, :1], settings, fps, generator, (late, early))
        shares = [self._alpha_bar(timestep, noise.device) for _, timestep in at]
        motion = (self.config.motion_x / 512, self.config.motion_y / 512)
        moved = translated_frames(at[1][0][:, :, 0], noise.shape[2], motion)
        grain = torch.randn(moved.shape, generator=generator).to(moved)
        start = renoised(moved, shares[1], shares[0], grain)
        start = torch.cat([at[0][0], start[:, :, 1:]], dim=2)

        def step(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            return on_step(number, timestep, start if number == late - 1 else sample)

        return super().sampling(told, noise, settings, fps, generator, step)()

    def _first_frame_at(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        counts: tuple[int, int],
    ) -> list[tuple[Tensor, int]]:
        """Latents (1, c, 1, h, w) of the first frame after so many steps, and the timestep each is at."""
        kept: dict[int, Tensor] = {}
        timesteps: list[int] = []

        def keep(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            # The timestep of a step is the one its input is at.
            timesteps.append(int(timestep))
            kept[number + 1] = sample
            if number == max(counts):
                raise _EnoughError
            return sample

        try:
            super().sampling(told, noise, settings, fps, generator, keep)()
        except _EnoughError:
            pass
        return [(kept[count], timesteps[count]) for count in counts]

    def _alpha_bar(self, timestep: int, device: torch.device) -> Tensor:
        scheduler = self.components["scheduler"]
        known = getattr(scheduler, "alphas_cumprod", None)
        if known is None or float(scheduler.init_noise_sigma) != 1:
            raise InputError(
                "text2video-zero needs a scheduler whose samples keep their variance, which a "
                f"{type(scheduler).__name__}'s do not; put DDIM's config into the pipeline's scheduler folder"
            )
        return known[timestep].to(device)


class StableDiffusionXLDecoderStage(StableDiffusionDecoderStage):
    """D^t of Stable Diffusion XL: two text encoders, and the size of the picture as a condition."""

    player: ClassVar[str] = "stable-diffusion-xl"
    lora_pipeline: ClassVar[str] = "StableDiffusionXLPipeline"
    conditioner_class: ClassVar[type[Conditioner]] = StableDiffusionXLConditioner
    defaults = StageSettings(num_inference_steps=25, guidance_scale=5.0)
    config_class = StableDiffusionXLConfig
    config: StableDiffusionXLConfig


class _EnoughError(Exception):
    """Ends the drawing of the first frame."""


def _without_training(model: Any) -> bool:
    return isinstance(model, InflatedModel) and model.scheme.frames_seen == "first"


def _steps_before(num_inference_steps: int) -> tuple[int, int]:
    """How many of the steps come before T, and before the earlier T' (in time; further down in noise)."""
    late = max(1, round(_MOVE_TO * num_inference_steps))
    return late, min(max(late + 1, round(_MOVE_FROM * num_inference_steps)), num_inference_steps - 1)
