"""Frames that begin as a picture rather than as noise (SDEdit, arXiv:2108.01073), as diffusers' img2img pipelines do.

Every frame starts from the latents of one picture, noised as at the step from which sampling goes on.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inflate.bases.autoencoder import pixels_per_cell
from inflate.errors import InputError, a
from inflate.stages import ChainState


@dataclass(frozen=True)
class Beginning:
    """``latents`` (1, c, 1, h, w) of a picture; ``strength``: how much of the steps is left to sample, in (0, 1]."""

    latents: Tensor
    strength: float

    def __call__(self, scheduler: Any, noise: Tensor) -> tuple[int, Tensor]:
        """The number of the first step of a scheduler with timesteps, and the sample (1, c, F, h, w) there.

        Raises:
            InputError: no step is left, or the scheduler cannot noise a sample.
        """
        count, flow = len(scheduler.timesteps), hasattr(scheduler, "scale_noise")
        # As in diffusers: whole steps are left to diffusion models, and whole ones left out for flow matching.
        skipped = int(count - count * self.strength) if flow else count - int(count * self.strength)
        if skipped >= count:
            raise InputError(
                f"A strength of {self.strength:g} leaves none of {count} steps; use more steps, or a higher strength."
            )
        if not flow and not hasattr(scheduler, "add_noise"):
            raise InputError(
                f"Frames cannot begin as a picture, because {a(type(scheduler).__name__)} cannot noise one."
            )
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        clean, timestep = self.latents.to(noise).expand_as(noise), scheduler.timesteps[skipped : skipped + 1]
        made = scheduler.scale_noise(clean, timestep, noise) if flow else scheduler.add_noise(clean, noise, timestep)
        return skipped, made


def beginning_of(stage: Any, state: ChainState) -> Beginning | None:
    """What the state's picture is for a decoder whose networks are loaded; None where there is none."""
    if state.init_image is None:
        return None
    pixels = state.init_image.to(stage.components["unet"].device)
    return Beginning(stage.encode(pixels).unsqueeze(2), state.strength)


def drawn_pixels(stage: Any) -> tuple[int, int]:
    """Height and width in pixels of the frames that a decoder draws, its weights not read.

    Raises:
        InputError: no config says it.
    """
    shape = stage.picture_shape()
    if shape is not None:
        factor = pixels_per_cell(stage.component_config("vae"))
        return shape[1] * factor, shape[2] * factor
    size = stage.usual_size()
    if size is None:
        raise InputError("The decoder's config has no sample_size, so it is not known how large its frames are.")
    return size
