"""An unconditional ``UNet2DModel`` as the decoder: frames of whatever it was trained on, from noise alone."""

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.bases.conditioners.labels import NoConditioner
from inflate.errors import InputError
from inflate.models.foreign import SizeConfig
from inflate.models.text_decoder import TextDecoderStage
from inflate.stages import StageSettings


class UnconditionalDecoderStage(TextDecoderStage):
    """D^t of a network that is told nothing."""

    player: ClassVar[str] = "unconditional"
    title: ClassVar[str] = "An unconditional network"
    told_nothing: ClassVar[bool] = True
    conditioner_class: ClassVar[type[Conditioner]] = NoConditioner
    defaults = StageSettings(num_inference_steps=100, guidance_scale=1.0)
    config_class = SizeConfig

    def reads_prompt(self) -> bool:
        """It reads nothing."""
        return False

    def encode_told(self, conditioner: Conditioner, image_embeds: Tensor | None, prompt: str) -> Encoding:
        """Nothing."""
        return conditioner.encode([])

    def guidance_inside(self, settings: StageSettings) -> tuple[StageSettings, float | None]:
        """There is nothing to guide by."""
        if settings.guidance_scale != 1 or settings.guidance_oscillate not in (None, 1):
            raise InputError(
                f"This model is told nothing, so there is nothing to guide by; leave guidance_scale out instead of "
                f"{settings.guidance_scale:g}."
            )
        return replace(settings, guidance_oscillate=None), None
