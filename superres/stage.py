"""What SR_l^t and SR_h have in common: frames in, larger frames out, a window of frames at a time."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.diffusion.noise import mix_noise
from inflate.diffusion.windows import count_windows
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings, denoise, stage_generator
from superres.conditioning import Layout, augment, enlarge, layout_of, level_of, predict
from superres.tiling import blend_tiles, check_tile
from superres.windows import windowed

_TEMPORAL_NAME = "temporal.safetensors"

# (number of the window, step, timestep, sample (1, 3, n, H, W)) -> the sample to go on with
OnWindowStep = Callable[[int, int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SuperResolutionConfig:
    """What a network was trained for, and how its input is cut up.

    ``scale``: how many times larger each side becomes. ``residual_std``: 0 where the network diffuses the picture
    itself (Karlo); above 0 where it diffuses (picture - enlarged picture) / ``residual_std`` (SRDiff, arXiv:2104.14951,
    section 3.2), which a small network learns much sooner. ``tile`` and ``tile_overlap``: sides in pixels of the tiles
    that the network sees of pictures larger than one.
    """

    scale: int = 4
    residual_std: float = 0.0
    tile: int = 512
    tile_overlap: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, int) or not 1 <= self.scale <= 16:
            raise InputError(f"scale must be a whole number from 1 to 16, got {self.scale!r}.")
        if not (math.isfinite(self.residual_std) and self.residual_std >= 0):
            raise InputError(f"residual_std must be 0 (no residual) or more, got {self.residual_std}.")
        check_tile(self.tile, self.tile_overlap)


class SuperResolutionStage(ComponentStage, ABC):
    """The part of a super-resolution stage that does not depend on which frames share what."""

    config_class = SuperResolutionConfig
    unet_role: ClassVar[str]
    scheduler_role: ClassVar[str]
    last_unet_role: ClassVar[str] = ""  # a second network for the last step, as Karlo has one

    @abstractmethod
    def window(self) -> tuple[int, int]:
        """Frames that the network sees at once, and those it shares with the window before."""

    @abstractmethod
    def generators(self, seed: int, first: int, count: int) -> list[torch.Generator]:
        """One generator for each of the frames ``first`` to ``first + count`` of a video, fresh."""

    def share(self) -> float:
        """How much of the first noise all frames have in common."""
        return 0.0

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """A network comes with its temporal layers where the folder has them."""
        if "unet" in role and (folder / _TEMPORAL_NAME).is_file():
            from inflate.checkpoint import load

            return load(folder, dtype=dtype)
        return super().read(role, folder, library, class_name, dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if not isinstance(component, InflatedModel):
            return super().write(component, folder)
        from inflate.checkpoint import save

        save(component, folder)
        return ["diffusers", type(component.image_model).__name__]

    def has_temporal_layers(self) -> bool:
        """Whether the network is an inflated one; known without reading its weights."""
        if self.unet_role in self.components:
            return isinstance(self.components[self.unet_role], InflatedModel)
        return self.unet_role in self.index and (self.path_of(self.unet_role) / _TEMPORAL_NAME).is_file()

    def done(self, state: ChainState) -> bool:
        """Whether this stage has changed the frames already."""
        return self.name in state.passed

    def work(self, state: ChainState, settings: StageSettings) -> float:
        """One evaluation per step and frame, frames of two windows counting twice."""
        frames = state.num_frames if state.frames is None else state.frames.shape[2]
        if "interpolation" not in state.passed:
            frames = (frames - 1) * state.frame_skip + 1
        overlap = self.window()[1]
        seen = frames + overlap * (count_windows(frames, *self.window()) - 1)
        return len(state.seeds) * settings.num_inference_steps * seen * settings.cost

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        """Enlarge the frames, video by video."""
        if state.frames is None:
            raise InputError("Super-resolution needs frames: give a video, or a cascade with a decoder.")
        windows = count_windows(state.frames.shape[2], *self.window())
        videos = []
        for video, seed in enumerate(state.seeds):

            def on_window_step(number: int, step: int, timestep: Tensor, sample: Tensor, video: int = video) -> Tensor:
                overall = (number * settings.num_inference_steps + step) // windows
                return on_step(video, min(overall, settings.num_inference_steps - 1), timestep, sample)

            parts = self._stream([state.frames[video]], seed, settings, None, state.fps, on_window_step)
            videos.append(torch.cat(list(parts), dim=1))
        return replace(state, frames=torch.stack(videos), passed=(*state.passed, self.name))

    def stream(
        self,
        chunks: Iterable[Tensor],
        seed: int,
        settings: StageSettings,
        on_frames: Callable[[int], None] | None = None,
        fps: float | None = None,
    ) -> Iterator[Tensor]:
        """Enlarge a video of any length, holding one window of it at a time.

        Args:
            chunks: (3, n, h, w) float32 in [-1, 1], in order, any n >= 1; how they are cut has no influence.
            seed: of the video.
            settings: steps, and the level of noise on the low-resolution frames.
            on_frames: called with k after each k finished frames.
            fps: frames per second, which a network with a frame-rate embedding is told.

        Yields:
            (3, m, scale h, scale w) float32 in [-1, 1] on the CPU, in order; as many frames in all.

        Raises:
            InputError: chunks that are no frames, a network with other channels, or a noise level it is not told of.
        """
        return self._stream(chunks, seed, settings, on_frames, fps, None)

    def upscale(self, frames: Tensor, seed: int, settings: StageSettings, fps: float | None = None) -> Tensor:
        """A video (3, F, h, w) in [-1, 1] in one piece -> (3, F, scale h, scale w); see :meth:`stream`."""
        return torch.cat(list(self.stream([frames], seed, settings, None, fps)), dim=1)

    def _stream(
        self,
        chunks: Iterable[Tensor],
        seed: int,
        settings: StageSettings,
        on_frames: Callable[[int], None] | None,
        fps: float | None,
        on_step: OnWindowStep | None,
    ) -> Iterator[Tensor]:
        window, overlap = self.window()
        for chunk in windowed(
            chunks,
            window,
            overlap,
            lambda frames, first: self._enlarged(
                frames, first, seed, settings, fps, _of_window(on_step, first // (window - overlap))
            ),
        ):
            if on_frames is not None:
                on_frames(chunk.shape[1])
            yield chunk

    @torch.no_grad()
    def _enlarged(
        self,
        frames: Tensor,
        first: int,
        seed: int,
        settings: StageSettings,
        fps: float | None,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        """(n, 3, h, w) -> (n, 3, H, W), ``first`` being the number of the first frame."""
        network, scheduler = self.components[self.unet_role], self.components[self.scheduler_role]
        layout = layout_of(network)
        level = level_of(settings.noise_level, layout, int(scheduler.config.num_train_timesteps))
        generators = self.generators(seed, first, len(frames))
        low = frames.to(network.device, torch.float32)
        base = padded(enlarge(low, self.config.scale), layout.multiple)
        noise = self._noise(base.shape, seed, generators).to(low.device)
        told = base
        if level:
            grain = torch.stack([torch.randn(low.shape[1:], generator=one) for one in generators]).to(low.device)
            levels = torch.full((len(low),), level)
            told = padded(enlarge(augment(low, grain, levels, _alphas(scheduler)), self.config.scale), layout.multiple)
        step = self._network_call(told, layout, level, settings.num_inference_steps, fps)
        made = denoise(scheduler, step, noise, settings.num_inference_steps, generators, on_step)
        pictures = base + self.config.residual_std * made if self.config.residual_std else made
        height, width = (side * self.config.scale for side in low.shape[-2:])
        return pictures[..., :height, :width].clamp(-1, 1).cpu()

    def _noise(self, shape: Sequence[int], seed: int, generators: Sequence[torch.Generator]) -> Tensor:
        own = torch.stack([torch.randn(tuple(shape[1:]), generator=one) for one in generators])
        share = self.share()
        if not share:
            return own
        common = torch.randn(tuple(shape[1:]), generator=stage_generator(seed, f"{self.name}/shared"))
        return mix_noise(own, common, share)

    def _network_call(
        self, told: Tensor, layout: Layout, level: int, num_steps: int, fps: float | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(sample (n, 3, H, W), timestep) -> prediction, by tiles; the last step may have a network of its own."""
        network = self.components[self.unet_role]
        last = self.components.get(self.last_unet_role)
        last_timestep = _last_timestep(self.components[self.scheduler_role], num_steps) if last is not None else None
        levels = torch.full((1,), level)

        def call(sample: Tensor, timestep: Tensor) -> Tensor:
            chosen = last if last is not None and float(timestep) == last_timestep else network

            def on_tile(part: Tensor, condition: Tensor) -> Tensor:
                video, beside = part.transpose(0, 1)[None], condition.transpose(0, 1)[None]
                return predict(chosen, video, beside, timestep, levels, _rate(chosen, fps))[0].transpose(0, 1)

            return blend_tiles(on_tile, sample, told, self.config.tile, self.config.tile_overlap, layout.multiple)

        return call


def _of_window(on_step: OnWindowStep | None, number: int) -> Callable[[int, Tensor, Tensor], Tensor] | None:
    """The callback of ``denoise`` for one window: samples go out as (1, 3, n, H, W) and come back as (n, 3, H, W)."""
    if on_step is None:
        return None

    def on_window_step(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
        return on_step(number, step, timestep, sample.transpose(0, 1)[None])[0].transpose(0, 1).contiguous()

    return on_window_step


def padded(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (N, 3, H, W) continued to the right and below by their last pixels, up to multiples of ``multiple``."""
    height, width = pictures.shape[-2:]
    return functional.pad(pictures, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _alphas(scheduler: Any) -> Tensor:
    found = getattr(scheduler, "alphas_cumprod", None)
    if found is None:
        raise InputError(
            f"{type(scheduler).__name__} has no alphas_cumprod, from which the noise on low-resolution frames follows; "
            "use noise_level 0 or another scheduler."
        )
    return found


def _last_timestep(scheduler: Any, num_steps: int) -> float:
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(num_steps)
    return float(fresh.timesteps[-1])


def _rate(network: Any, fps: float | None) -> float | None:
    """The frame rate as the network may be told it: nearest in the range it was trained for."""
    fps_range = network.scheme.fps_range if isinstance(network, InflatedModel) else None
    return None if fps is None or fps_range is None else min(max(float(fps), fps_range[0]), fps_range[1])
