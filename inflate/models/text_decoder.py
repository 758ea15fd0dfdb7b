"""Decoders that read the prompt themselves, so that the chain has no prior: what all of them do alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.errors import InputError
from inflate.models.beginning import Beginning, beginning_of
from inflate.models.foreign import ForeignDecoderStage, SizeConfig, Told, sample_frames
from inflate.models.guided import check_fps, check_threshold, needs_both
from inflate.models.segments import blend_told, check_segments, on_show
from inflate.models.windows import windows_of
from inflate.stages import ChainState, OnStep, StageSettings, stage_generator


@dataclass(frozen=True)
class TextDecoderConfig(SizeConfig):
    """As :class:`SizeConfig`; ``negative_prompt`` is what guidance goes away from."""

    negative_prompt: str = ""


class TextDecoderStage(ForeignDecoderStage):
    """D^t of a network that is told a text."""

    title: ClassVar[str]  # of the family, for messages
    needs_embeds: ClassVar[bool] = False
    pictures_at_once: ClassVar[int] = 4
    config_class = TextDecoderConfig

    def embed_size(self) -> int | None:
        """None: it takes no image embeddings."""
        return None

    def encode_told(self, conditioner: Conditioner, image_embeds: Tensor | None, prompt: str) -> Encoding:
        """The prompt."""
        return conditioner.encode([prompt])

    def encode_untold(self, conditioner: Conditioner) -> Encoding:
        """The negative prompt, or what the family has in its place."""
        negative = getattr(self.config, "negative_prompt", "")
        return conditioner.encode([negative]) if negative else conditioner.unconditional(1)

    def reads_prompt(self) -> bool:
        """It reads nothing else."""
        return True

    def vae(self) -> Any:
        """The autoencoder, as float32 where it overflows in float16."""
        vae = self.components.get("vae")
        if vae is not None and vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
            vae.to(torch.float32)
        return vae

    def draw(self, state: ChainState, video: int, settings: StageSettings, on_step: OnStep) -> Tensor:
        """Latents (1, c, F, h, w) of one video."""
        if not state.prompts:
            raise InputError(
                f"{self.title} makes frames from a prompt, and there is none; its networks cannot be told an image "
                "embedding, so varying and animating pictures needs another decoder (Karlo's, Kandinsky's, ours)."
            )
        model = self.components["unet"]
        check_fps(model, state.fps)
        check_segments(state, windows_of(model).size)
        check_threshold(settings, self.vae())
        settings, inside = self.guidance_inside(settings)
        generator = stage_generator(state.seeds[video], self.name)
        noise = self.first_noise(state, generator)
        with torch.no_grad():
            told = self._told_by_time(state, video, needs_both(settings), inside)

        def step(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            return on_step(video, number, timestep, sample)

        return self.sample(told, noise, settings, state.fps, generator, step, beginning_of(self, state))

    def sample(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        on_step: Callable[[int, Tensor, Tensor], Tensor],
        begin: Beginning | None = None,
    ) -> Tensor:
        """Latents from ``noise`` (1, c, F, h, w); see :func:`sample_frames`."""
        model = self.components["unet"]
        windows = windows_of(model, self.config)
        return sample_frames(model, self.scheduler(), told, noise, settings, fps, generator, on_step, windows, begin)

    def _told_by_time(self, state: ChainState, video: int, guided: bool, inside: float | None) -> Told:
        """As for other decoders; in a transition what is told of two texts is mixed."""
        texts = (state.prompts[video], *(one.prompt for one in state.segments))
        told = [self.told(None, text, guided, inside) for text in texts]

        def at(frame: float) -> Mapping[str, Any]:
            number, share = on_show(state, frame / state.fps)
            return told[number] if share == 1 else blend_told(told[number - 1], told[number], share)

        return at if state.segments else told[0]
