"""What decoders of other people's pipelines have in common: how they sample, and networks that predict variance too."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.autoencoder import pixels_per_cell, size_multiple
from inflate.bases.conditioner import Conditioner, Encoding, joined
from inflate.bases.flow import at_resolution
from inflate.bases.parts import read_part, write_part
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.beginning import Beginning, beginning_of
from inflate.models.decoder import DecoderStage
from inflate.models.segments import embeds_at, on_show, prompt_at
from inflate.sampling.denoiser import Denoiser, Told, check_threshold, guidance_of, needs_both
from inflate.sampling.known import Predict
from inflate.sampling.loop import Generators, OnSample, denoise
from inflate.sampling.windows import WindowConfig, Windows, windows_of
from inflate.stages import ChainState, OnStep, StageSettings, stage_generator

# Parts of a conditioner that a stage calls "decoder_…", for a prior beside it may have one of the same name.
_ENCODERS = tuple(f"{role}{suffix}" for suffix in ("", "_2", "_3") for role in ("text_encoder", "tokenizer"))


def sample_frames(
    model: Any,
    scheduler: Any,
    told: Told,
    noise: Tensor,
    settings: StageSettings,
    fps: float | None = None,
    generator: Generators = None,
    on_step: OnSample | None = None,
    windows: Windows | None = None,
    begin: Beginning | None = None,
) -> Tensor:
    """Draw one video (1, c, F, h, w) from ``noise`` of that shape, float32.

    A network that predicts twice the channels predicts its variance too, which only a scheduler of learned variance
    takes; guidance changes the noise alone, and the variance is that of the conditional prediction.

    Args:
        model: a ``UNet2DConditionModel``, or an inflated one.
        scheduler: any diffusers scheduler of the model's prediction type.
        told: the network's own arguments, first sizes 2 (unconditional, conditional) with guidance and 1 without; or
            what gives them for a window, by the place of its middle in the video, in frames.
        noise: standard normal.
        settings: steps and guidance.
        fps: frames per second, which an inflated model is told.
        generator: for schedulers that draw noise at each step.
        on_step: called with (step, timestep, sample); what it returns replaces the sample.
        windows: how a longer video than the model's own is cut; None as by default.
        begin: what frames begin as, where that is not the noise.
    """
    predict = frames_denoiser(model, scheduler, told, settings, fps, windows or windows_of(model))
    with torch.no_grad():
        return denoise(scheduler, predict, noise, settings.num_inference_steps, generator, on_step, begin)


def frames_denoiser(
    model: Any, scheduler: Any, told: Told, settings: StageSettings, fps: float | None, windows: Windows | None = None
) -> Denoiser:
    """What a sampler asks a network; arguments as for :func:`sample_frames`."""
    guidance = guidance_of(settings.guidance_scale, settings, scheduler, settings.num_inference_steps)
    return Denoiser(model, scheduler, told, guidance, fps=fps, windows=windows, threshold=settings.threshold)


@dataclass(frozen=True)
class SizeConfig(WindowConfig):
    """Of a decoder that draws frames of any size; as :class:`WindowConfig`.

    ``height`` and ``width``, in pixels; 0 is what the network was made for.
    """

    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.height, self.width) < 0 or bool(self.height) != bool(self.width):
            raise InputError(f"height and width must both be given, or neither; got {self.height} and {self.width}.")


@dataclass(frozen=True)
class TextConfig(SizeConfig):
    """Of a decoder that reads a text beside the image embedding; as :class:`SizeConfig`.

    ``read_prompt``: whether that is the prompt, as in the image pipeline. False gives it the empty text, for
    Make-A-Video learns from videos without any.
    """

    read_prompt: bool = False


class ForeignDecoderStage(DecoderStage, ABC):
    """D, or D^t, of somebody else: its conditioner says what its network is told, in sampling as in training."""

    conditioner_class: ClassVar[type[Conditioner]]
    default_cells: ClassVar[int | None] = None  # latent cells a side where the network's config does not say it
    patch: ClassVar[int] = 1  # latent cells along a side of a token
    even_steps: ClassVar[bool] = False  # as of at_resolution
    config_class = SizeConfig
    config: SizeConfig

    def conditioner(self) -> Conditioner:
        """What makes the network's arguments, of this stage's own components."""
        roles = {role: f"decoder_{role}" for role in _ENCODERS}
        components = {role: self.components[name] for role, name in roles.items() if name in self.components}
        return self.conditioner_class(
            self.component_config("unet"), components=self.components | components, options=asdict(self.config)
        )

    @abstractmethod
    def encode_told(self, conditioner: Conditioner, image_embeds: Tensor | None, prompt: str) -> Encoding:
        """What is encoded of one embedding (1, D), or of a prompt."""

    def encode_untold(self, conditioner: Conditioner) -> Encoding:
        """What guidance goes away from."""
        return conditioner.unconditional(1)

    def told(
        self, image_embeds: Tensor | None, prompt: str, guided: bool, inside: float | None = None
    ) -> dict[str, Any]:
        """The network's arguments for one embedding (1, D) or prompt: first sizes 2 (unconditional, conditional), or 1.

        ``inside`` is the scale of guidance that a network with guidance in its weights is told.
        """
        conditioner = self.conditioner()
        encoding = self.encode_told(conditioner, image_embeds, prompt)
        if guided:
            encoding = joined(self.encode_untold(conditioner), encoding)
        return conditioner.arguments(encoding, *self.picture_size(), inside)

    def guidance_inside(self, settings: StageSettings) -> tuple[StageSettings, float | None]:
        """Settings to sample with, and the scale that the network itself is told, where it has guidance inside."""
        return settings, None

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the frames it makes, in pixels.

        Raises:
            InputError: no config says them, or the network cannot draw them.
        """
        if self.drawn_size is not None:
            return self.drawn_size
        if not self.config.height:
            cells = self._cells()
            if cells is None:
                raise InputError("The decoder's config has no sample_size; set it to the side of its latents.")
            factor = pixels_per_cell(self.component_config("vae"))
            return cells[0] * factor, cells[1] * factor
        multiple = pixels_per_cell(self.component_config("vae")) * self.patch
        if self.config.height % multiple or self.config.width % multiple:
            raise InputError(
                f"This decoder makes frames whose height and width {multiple} divides, not {self.config.height} x "
                f"{self.config.width}."
            )
        return self.config.height, self.config.width

    def usual_size(self) -> tuple[int, int] | None:
        """As :meth:`DecoderStage.usual_size`."""
        return None if not self.config.height and self._cells() is None else self.picture_size()

    def size_multiple(self) -> int | None:
        """As :meth:`DecoderStage.size_multiple`."""
        return size_multiple(self.component_config("unet"), self.component_config("vae"), self.patch)

    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame as the network draws it."""
        height, width = self.picture_size()
        factor = pixels_per_cell(self.component_config("vae"))
        return self.channels(), height // factor, width // factor

    def channels(self) -> int:
        """Channels of a frame as the network draws it."""
        return int(self.component_config("unet")["in_channels"])

    def scheduler(self) -> Any:
        """The pipeline's, with the steps that it takes for this size."""
        _, height, width = self.picture_shape()
        tokens = (height // self.patch) * (width // self.patch)
        return at_resolution(self.components["scheduler"], tokens, self.even_steps)

    def _cells(self) -> tuple[int, int] | None:
        size = self.component_config("unet").get("sample_size") or self.default_cells
        return (size, size) if isinstance(size, int) else None if size is None else (int(size[0]), int(size[1]))

    def reads_prompt(self) -> bool:
        """As its configuration says, where it can."""
        return bool(getattr(self.config, "read_prompt", False))

    def predictor(
        self, image_embeds: Tensor | None, prompt: str, num_frames: int, fps: float, settings: StageSettings
    ) -> Predict:
        """As :meth:`DecoderStage.predictor`."""
        model, scheduler = self.components["unet"], self.scheduler()
        check_threshold(settings, self.vae())
        settings, inside = self.guidance_inside(settings)
        with torch.no_grad():
            told = self.told(image_embeds, prompt, needs_both(settings), inside)
        return frames_denoiser(model, scheduler, told, settings, fps)

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The network as in our families, with temporal layers where its folder has them; the rest as it comes."""
        if role == "unet":
            return super().read(role, folder, library, class_name, dtype)
        return read_part(folder, library, class_name, dtype, self.variant)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if isinstance(component, InflatedModel):
            return super().write(component, folder)
        return write_part(component, folder)

    def drawing(self, state: ChainState, video: int, settings: StageSettings, on_step: OnStep) -> Callable[[], Tensor]:
        """As :meth:`DecoderStage.drawing`; without temporal layers each frame is drawn on its own."""
        self.check(state)
        check_threshold(settings, self.vae())
        settings, inside = self.guidance_inside(settings)
        generator = stage_generator(state.seeds[video], self.name)
        noise = self.first_noise(state, generator)
        with torch.no_grad():
            told = self.told_by_time(state, video, needs_both(settings), inside)
        begin = beginning_of(self, state)
        return self.sampling(told, noise, settings, state.fps, generator, partial(on_step, video), begin)

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
        """What draws latents from ``noise`` (1, c, F, h, w) when it is called; see :func:`sample_frames`."""
        model, scheduler = self.components["unet"], self.scheduler()
        predict = frames_denoiser(model, scheduler, told, settings, fps, windows_of(model, self.config))
        return partial(denoise, scheduler, predict, noise, settings.num_inference_steps, generator, on_step, begin)

    def check(self, state: ChainState) -> None:
        """As :meth:`DecoderStage.check`, and the embeddings' size."""
        super().check(state)
        embeds, wanted = state.image_embeds, self.embed_size()
        assert embeds is not None, "checked"
        if embeds.ndim != 2 or (wanted is not None and embeds.shape[1] != wanted):
            raise InputError(
                f"The decoder takes image embeddings (batch, {wanted}), got {tuple(embeds.shape)}; "
                "prior and decoder must belong to the same family."
            )

    def told_by_time(self, state: ChainState, video: int, guided: bool, inside: float | None) -> Told:
        """:meth:`told` for one of the state's videos; for one of segments by the frame in a window's middle."""
        device, kept = self.components["unet"].device, {}

        def at(frame: float) -> Mapping[str, Any]:
            seconds = frame / state.fps
            key = on_show(state, seconds)
            if key not in kept:
                kept.clear()  # windows come in the order of time
                embeds = embeds_at(state, video, seconds).to(device)
                kept[key] = self.told(embeds, prompt_at(state, video, seconds), guided, inside)
            return kept[key]

        return at if state.segments else at(0)


def optional_config(config: Mapping[str, Any], name: str) -> int | None:
    """A whole number of a config, or None."""
    value = config.get(name)
    return value if isinstance(value, int) else None
