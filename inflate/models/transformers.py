"""PixArt, Stable Diffusion 3, FLUX and DiT as the decoder: image transformers, inflated or frame by frame."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from inflate.bases.conditioner import Conditioner
from inflate.bases.conditioners.labels import LabelConditioner
from inflate.bases.conditioners.transformers import FluxConditioner, PixArtConditioner, StableDiffusion3Conditioner
from inflate.errors import InputError
from inflate.models.foreign import SizeConfig
from inflate.models.text_decoder import TextDecoderConfig, TextDecoderStage
from inflate.sampling.denoiser import check_both
from inflate.stages import StageSettings

_FLUX_PACKED = 4  # latent cells that FLUX's config counts as channels of one token


@dataclass(frozen=True)
class LongTextConfig(TextDecoderConfig):
    """As :class:`TextDecoderConfig`; ``max_sequence_length`` tokens of a text are read, 0 for the pipeline's number."""

    max_sequence_length: int = 0


@dataclass(frozen=True)
class LabelConfig(SizeConfig):
    """As :class:`SizeConfig`; ``id2label`` are the classes' names by number, as the pipeline's index lists them."""

    id2label: dict[str, str] = field(default_factory=dict)


class PixArtDecoderStage(TextDecoderStage):
    """D^t of PixArt-alpha or -sigma; steps and guidance are its pipeline's."""

    player: ClassVar[str] = "pixart"
    title: ClassVar[str] = "PixArt"
    conditioner_class: ClassVar[type[Conditioner]] = PixArtConditioner
    patch: ClassVar[int] = 2
    defaults = StageSettings(num_inference_steps=20, guidance_scale=4.5)
    config_class = LongTextConfig


class StableDiffusion3DecoderStage(TextDecoderStage):
    """D^t of Stable Diffusion 3 or 3.5, which flow matching draws; steps and guidance are its pipeline's."""

    player: ClassVar[str] = "sd3"
    title: ClassVar[str] = "Stable Diffusion 3"
    lora_pipeline: ClassVar[str] = "StableDiffusion3Pipeline"
    conditioner_class: ClassVar[type[Conditioner]] = StableDiffusion3Conditioner
    patch: ClassVar[int] = 2
    defaults = StageSettings(num_inference_steps=28, guidance_scale=7.0)


class FluxDecoderStage(TextDecoderStage):
    """D^t of FLUX.1: dev is told a scale of guidance, schnell has none; there is no second evaluation for either."""

    player: ClassVar[str] = "flux"
    title: ClassVar[str] = "FLUX"
    lora_pipeline: ClassVar[str] = "FluxPipeline"
    conditioner_class: ClassVar[type[Conditioner]] = FluxConditioner
    patch: ClassVar[int] = 2
    default_cells: ClassVar[int | None] = 128
    even_steps: ClassVar[bool] = True
    defaults = StageSettings(num_inference_steps=28, guidance_scale=3.5)
    config_class = LongTextConfig

    def _own_defaults(self) -> StageSettings:
        """Schnell's 4 steps without guidance, where the network is schnell's."""
        own = super()._own_defaults()
        guided = self.component_config("unet").get("guidance_embeds", True)
        return own if guided else replace(own, num_inference_steps=4, guidance_scale=1.0)

    def channels(self) -> int:
        """As :meth:`ForeignDecoderStage.channels`; the config counts those of a token."""
        return super().channels() // _FLUX_PACKED

    def guidance_inside(self, settings: StageSettings) -> tuple[StageSettings, float | None]:
        """The scale goes into the network, which is evaluated once."""
        check_both(settings, "FLUX")
        guided = bool(self.component_config("unet").get("guidance_embeds"))
        if not guided and settings.guidance_scale != 1:
            raise InputError(
                f"This FLUX (schnell) knows no guidance; leave guidance_scale out, or set it to 1 instead of "
                f"{settings.guidance_scale:g}."
            )
        return replace(settings, guidance_scale=1.0), settings.guidance_scale if guided else None


class LabelDecoderStage(TextDecoderStage):
    """D^t of DiT, whose prompt is the name or the number of a class."""

    player: ClassVar[str] = "dit"
    title: ClassVar[str] = "DiT"
    conditioner_class: ClassVar[type[Conditioner]] = LabelConditioner
    patch: ClassVar[int] = 2
    defaults = StageSettings(num_inference_steps=50, guidance_scale=4.0)
    config_class = LabelConfig
    config: LabelConfig

    def picture_size(self) -> tuple[int, int]:
        """As :meth:`ForeignDecoderStage.picture_size`; DiT draws squares only."""
        height, width = super().picture_size()
        if height != width:
            raise InputError(f"DiT makes square frames, not {height} x {width}.")
        return height, width

    def size_multiple(self) -> None:
        """None, for the same reason."""
