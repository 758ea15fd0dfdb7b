"""The decoder: CLIP image embedding -> picture (D) or video (D^t of Make-A-Video, arXiv:2209.14792, section 3.2)."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from inflate.bases.autoencoder import decode_pictures, encode_pixels, pixels_per_cell, size_multiple
from inflate.bases.conditioners.images import image_conditioning
from inflate.checkpoint.temporal import read_temporal_info
from inflate.components import variant_there
from inflate.diffusion.guidance import Guidance, GuidanceOptions
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.apart import warn_if_apart
from inflate.models.beginning import Beginning, beginning_of
from inflate.models.loras import TEMPORAL_NAME, LoraStage
from inflate.models.segments import check_segments, embeds_at
from inflate.sampling.denoiser import Denoiser, check_fps, check_threshold, guidance_inside, guidance_of
from inflate.sampling.known import Predict
from inflate.sampling.loop import Generators, OnSample, denoise
from inflate.sampling.noise import frame_noise
from inflate.sampling.windows import WindowConfig, Windows, windows_of
from inflate.stages import ChainState, OnStep, StageSettings, stage_generator, unchanged
from inflate.video import fold_frames, unfold_frames

_FRAMES_AT_ONCE = 16


def decode_latents(vae: Any | None, latents: Tensor, pictures_at_once: int = 16) -> Tensor:
    """Latents of pictures (N, c, h, w) or videos (B, c, F, h, w) -> pixels of the same kind, float32 in [-1, 1].

    Args:
        vae: a diffusers ``AutoencoderDC`` or ``AutoencoderKL``; None where the latents are pixels already.
        latents: as :func:`sample_latents` makes them.
        pictures_at_once: how many go through the VAE together; memory does not grow with the rest.
    """
    if vae is None:
        return latents.float().clamp(-1, 1)
    pictures = fold_frames(latents) if latents.ndim == 5 else latents
    with torch.no_grad():
        chunks = [decode_pictures(vae, chunk).clamp(-1, 1) for chunk in pictures.split(pictures_at_once)]
    pixels = torch.cat(chunks)
    return unfold_frames(pixels, latents.shape[2]) if latents.ndim == 5 else pixels


def sample_latents(
    model: Any,
    scheduler: Any,
    image_embeds: Tensor,
    num_frames: int | None = None,
    fps: float | None = None,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    generator: Generators = None,
    on_step: OnSample | None = None,
    windows: WindowConfig | None = None,
    embeds_of: Callable[[float], Tensor] | None = None,
    options: GuidanceOptions | None = None,
    picture: tuple[int, int, int] | None = None,
    begin: Beginning | None = None,
) -> Tensor:
    """Draw latents (or pixels, for a pixel-space model) for image embeddings.

    More frames than D^t's own go through it in overlapping windows, one at a time; see :mod:`inflate.sampling.windows`.

    Args:
        model: D, a ``UNet2DConditionModel``, or D^t, an ``InflatedModel`` of one.
        scheduler: any diffusers scheduler of the model's prediction type.
        image_embeds: (B, D).
        num_frames: frames per video; None is D^t's own number, and a single picture for D.
        fps: frames per second, which D^t is told.
        num_inference_steps, guidance_scale: as in ``StageSettings``; unconditional is an embedding of zeros.
        generator: one, or one per embedding. Frames share as much noise as the scheme says.
        on_step: called with (step, timestep, latents); what it returns replaces the latents.
        windows: how a video is cut that is longer than the model's own.
        embeds_of: by the place of a window's middle, in frames, its embeddings (B, D) if not ``image_embeds``.
        options: of guidance; see ``GuidanceOptions``. A video is thresholded as a whole, also one of many windows.
        picture: (c, h, w) of a frame; None is the model's own size.
        begin: what frames begin as, where that is not the noise.

    Returns:
        (B, c, F, h, w), or (B, c, h, w) for D without ``num_frames``; float32.

    Raises:
        InputError: the embedding does not fit the model, or the model has no sample size.
    """
    frames = model.num_frames if isinstance(model, InflatedModel) and num_frames is None else num_frames
    options = options or GuidanceOptions()
    guidance = guidance_of(guidance_scale, options, scheduler, num_inference_steps)
    cut = None if frames is None else windows_of(model, windows)
    more: Any = {"frames": frames, "windows": cut, "embeds_of": embeds_of, "threshold": options.threshold}
    predict = decoder_denoiser(model, scheduler, image_embeds, guidance, fps, **more)
    repeat = cut if windows is not None and windows.repeat_noise else None
    noise = frame_noise(model, len(image_embeds), frames, generator, image_embeds.device, fps, repeat, picture)
    with torch.no_grad():
        return denoise(scheduler, predict, noise, num_inference_steps, generator, on_step, begin)


def decoder_denoiser(
    model: Any,
    scheduler: Any,
    image_embeds: Tensor,
    guidance: Guidance,
    fps: float | None = None,
    *,
    frames: int | None = None,
    windows: Windows | None = None,
    embeds_of: Callable[[float], Tensor] | None = None,
    threshold: float | None = None,
) -> Denoiser:
    """What a sampler asks D or D^t, told image embeddings; arguments as for :func:`sample_latents`.

    Raises:
        InputError: embeddings or guidance that the network does not know, or no frames.
    """
    if frames is not None and frames < 1:
        raise InputError(f"num_frames must be at least 1, got {frames}.")
    _check_embeds(model, image_embeds)
    inside = guidance_inside(model, guidance)
    both = guidance.needs_both and not inside

    def told(middle: float) -> dict[str, Tensor]:
        embeds = image_embeds if embeds_of is None else embeds_of(middle).to(image_embeds)
        return image_conditioning(torch.cat([torch.zeros_like(embeds), embeds]) if both else embeds)

    return Denoiser(model, scheduler, told, guidance, fps=fps, windows=windows, threshold=threshold, inside=inside)


def _check_embeds(model: Any, image_embeds: Tensor) -> None:
    wanted = _embed_size(model.config)
    if image_embeds.ndim != 2 or (isinstance(wanted, int) and image_embeds.shape[1] != wanted):
        raise InputError(
            f"The decoder takes image embeddings (batch, {wanted}), got {tuple(image_embeds.shape)}; "
            "prior and decoder must belong to the same family."
        )


def _embed_size(config: Mapping[str, Any]) -> Any:
    return config.get("projection_class_embeddings_input_dim") or config.get("cross_attention_dim")


class DecoderStage(LoraStage):
    """D^t (or D, frame by frame) with its VAE if it has one: image embeddings in, frames out."""

    name: ClassVar[str] = "decoder"
    makes_frames: ClassVar[bool] = True
    guidance_options: ClassVar[bool] = True
    needs_embeds: ClassVar[bool] = True  # whether it is told image embeddings, rather than a prompt alone
    told_nothing: ClassVar[bool] = False  # whether it is told neither embeddings nor a prompt
    pictures_at_once: ClassVar[int] = 16  # through the VAE
    defaults = StageSettings(num_inference_steps=15, guidance_scale=2.0)
    config_class = WindowConfig
    config: WindowConfig
    drawn_size: tuple[int, int] | None = None  # height and width in pixels, where they are not the usual ones

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The network comes with its temporal layers where the folder has them."""
        if role == "unet" and (folder / TEMPORAL_NAME).is_file():
            from inflate.checkpoint import load

            return load(folder, dtype=dtype, variant=variant_there(folder, self.variant))
        return super().read(role, folder, library, class_name, dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if not isinstance(component, InflatedModel):
            return super().write(component, folder)
        from inflate.checkpoint import save

        save(component, folder)
        return ["diffusers", type(component.image_model).__name__]

    def done(self, state: ChainState) -> bool:
        """Whether there are frames already."""
        return state.frames is not None

    def work(self, state: ChainState, settings: StageSettings) -> float:
        """One evaluation per step and frame, frames of two windows counting twice."""
        size = self.window_size()
        frames = Windows(size, min(int(size * self.config.overlap), size - 1)).frames_seen(state.num_frames)
        return len(state.seeds) * settings.num_inference_steps * frames * settings.cost

    def window_size(self) -> int:
        """Frames that go through the network at once, known without reading its weights; more are cut into windows."""
        if "unet" in self.components:
            return windows_of(self.components["unet"]).size
        path = self.path_of("unet") / TEMPORAL_NAME
        return read_temporal_info(path)[0].num_frames if path.is_file() else _FRAMES_AT_ONCE

    def has_temporal_layers(self) -> bool:
        """Whether the network knows time, known without reading its weights."""
        unet = self.components.get("unet")
        return (self.path_of("unet") / TEMPORAL_NAME).is_file() if unet is None else isinstance(unet, InflatedModel)

    def embed_size(self) -> int | None:
        """Numbers in the image embeddings it takes, known without reading weights; None where no config says it."""
        return _embed_size(self.component_config("unet"))

    def usual_size(self) -> tuple[int, int] | None:
        """Height and width of the frames it makes, in pixels, without reading weights; None where no config says it."""
        size, factor = self.component_config("unet").get("sample_size"), pixels_per_cell(self.component_config("vae"))
        if size is None:
            return None
        rows, columns = (size, size) if isinstance(size, int) else size
        return rows * factor, columns * factor

    def frame_size(self) -> int | None:
        """Side of the square frames it makes, in pixels, without reading weights; None for others, or if unknown."""
        size = self.usual_size()
        return size[0] if size is not None and size[0] == size[1] else None

    def size_multiple(self) -> int | None:
        """What both sides of frames must be multiples of, in pixels; None for a network that knows one size alone."""
        return size_multiple(self.component_config("unet"), self.component_config("vae"))

    def sized(self, height: int, width: int) -> Self:
        """The same stage, of the same weights, that draws frames of this size, which :meth:`size_multiple` allows."""
        stage = copy.copy(self)
        stage.drawn_size = (height, width)
        return stage

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        """The frames of a video; its latents alone lie in memory as a whole."""
        warn_if_apart(self.components["unet"], state.num_frames)
        draw = self.drawing(state, video, settings, on_step)
        with torch.no_grad():
            latents = draw()
        for part in latents.split(_FRAMES_AT_ONCE, dim=2):
            yield self.to_pixels(part)[0].cpu()

    def after(self, state: ChainState) -> ChainState:
        """As it was, but for the frames."""
        return state

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        """As of :class:`Stage`, from one window; frames of two windows are drawn twice, and decoded once."""
        size, generator = self.embed_size(), stage_generator(0, "timing")
        embeds = None if size is None else functional.normalize(torch.randn(1, size, generator=generator))
        window = replace(state, num_frames=self.window_size(), image_embeds=embeds, segments=())
        start = drawn = 0.0
        for _ in range(2):  # the first time kernels are chosen and buffers made
            start = time.perf_counter()
            draw = self.drawing(window, 0, settings, unchanged)
            with torch.no_grad():
                latents = draw()
            drawn = time.perf_counter()
            self.to_pixels(latents)
        decoded = time.perf_counter() - drawn
        drawing = (drawn - start) * self.work(state, settings) / self.work(window, settings)
        return drawing + decoded * state.num_frames / window.num_frames

    def drawing(self, state: ChainState, video: int, settings: StageSettings, on_step: OnStep) -> Callable[[], Tensor]:
        """What draws the latents (1, c, F, h, w) of one of the state's videos when it is called, without gradients."""
        model, scheduler = self.components["unet"], self.scheduler()
        self.check(state)
        check_threshold(settings, self.vae())
        assert state.image_embeds is not None, "checked"
        predict = decoder_denoiser(
            model,
            scheduler,
            state.image_embeds[video : video + 1].to(model.device),
            guidance_of(settings.guidance_scale, settings, scheduler, settings.num_inference_steps),
            state.fps,
            frames=state.num_frames,
            windows=windows_of(model, self.config),
            embeds_of=(lambda middle: embeds_at(state, video, middle / state.fps)) if state.segments else None,
            threshold=settings.threshold,
        )
        generator = stage_generator(state.seeds[video], self.name)
        return partial(
            denoise,
            scheduler,
            predict,
            self.first_noise(state, generator),
            settings.num_inference_steps,
            generator,
            partial(on_step, video),
            beginning_of(self, state),
        )

    def first_noise(self, state: ChainState, generator: torch.Generator) -> Tensor:
        """Noise (1, c, F, h, w) that a video starts from."""
        model = self.components["unet"]
        repeat = windows_of(model, self.config) if self.config.repeat_noise else None
        return frame_noise(model, 1, state.num_frames, generator, model.device, state.fps, repeat, self.picture_shape())

    def check(self, state: ChainState) -> None:
        """``InputError`` where the state has no image embeddings, or frame rate or segments do not fit the network."""
        if state.image_embeds is None:
            raise InputError("The decoder needs image embeddings: give image_embeds, or a cascade with a prior.")
        model = self.components["unet"]
        check_fps(model, state.fps)
        check_segments(state, windows_of(model).size)

    def scheduler(self) -> Any:
        """The scheduler that it samples with."""
        return self.components["scheduler"]

    def picture_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of a frame as the network draws it; None for what its config says."""
        if self.drawn_size is None:
            return None
        factor = pixels_per_cell(self.component_config("vae"))
        height, width = self.drawn_size
        return int(self.component_config("unet")["in_channels"]), height // factor, width // factor

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Latents (1, c, F, h, w) -> (1, 3, F, H, W) in [-1, 1]."""
        return decode_latents(self.vae(), latents, self.pictures_at_once)

    def vae(self) -> Any | None:
        """The autoencoder; None for a decoder of pixels."""
        return self.components.get("vae")

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] -> latents (N, c, h, w), float32; the way back of :meth:`to_pixels`."""
        vae = self.vae()
        if vae is None:
            return pixels.float()
        return torch.cat([encode_pixels(vae, part).float() for part in pixels.split(self.pictures_at_once)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, c, h, w) -> pixels (N, 3, H, W), float32, differentiable and not clipped."""
        return decode_pictures(self.vae(), latents)

    def reads_prompt(self) -> bool:
        """Whether it is told a prompt."""
        return False

    def predictor(
        self, image_embeds: Tensor | None, prompt: str, num_frames: int, fps: float, settings: StageSettings
    ) -> Predict:
        """(sample (1, c, F, h, w), timestep) -> what the network predicts for one video, guided as ``settings`` say."""
        assert image_embeds is not None, "it is told embeddings"
        scheduler = self.scheduler()
        check_threshold(settings, self.vae())
        guidance = guidance_of(settings.guidance_scale, settings, scheduler, settings.num_inference_steps)
        return decoder_denoiser(
            self.components["unet"],
            scheduler,
            image_embeds,
            guidance,
            fps,
            frames=num_frames,
            threshold=settings.threshold,
        )
