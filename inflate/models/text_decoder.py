"""Decoders that read the prompt themselves, so that the chain has no prior: what all of them do alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.errors import InputError
from inflate.models.foreign import ForeignDecoderStage, SizeConfig
from inflate.models.segments import blend_told, check_segments, on_show
from inflate.sampling.denoiser import Told, check_fps
from inflate.sampling.windows import windows_of
from inflate.stages import ChainState


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

    def check(self, state: ChainState) -> None:
        """``InputError`` where there is no prompt, or frame rate or segments do not fit the network."""
        if not state.prompts:
            raise InputError(
                f"{self.title} makes frames from a prompt, and there is none; its networks cannot be told an image "
                "embedding, so varying and animating pictures needs another decoder (Karlo's, Kandinsky's, ours)."
            )
        model = self.components["unet"]
        check_fps(model, state.fps)
        check_segments(state, windows_of(model).size)

    def told_by_time(self, state: ChainState, video: int, guided: bool, inside: float | None) -> Told:
        """As for other decoders; in a transition what is told of two texts is mixed."""
        texts = (state.prompts[video], *(one.prompt for one in state.segments))
        told = [self.told(None, text, guided, inside) for text in texts]

        def at(frame: float) -> Mapping[str, Any]:
            number, share = on_show(state, frame / state.fps)
            return told[number] if share == 1 else blend_told(told[number - 1], told[number], share)

        return at if state.segments else told[0]
