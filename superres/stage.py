"""What SR_l^t and SR_h have in common: frames in, larger frames out, a window of frames at a time."""

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.components import variant_there
from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.sampling.loop import denoise
from inflate.sampling.windows import Frames, count_windows, windowed
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings, stage_generator
from superres.conditioning import augment, enlarge, layout_of, level_of, predict
from superres.places import Generators, Place
from superres.store import BYTES_PER_PIXEL, FrameStore
from superres.tiling import check_tile, count_tiles, tiles_of

_TEMPORAL_NAME = "temporal.safetensors"

_PROBE = 64  # pixels, the smallest side of a picture whose enlargement is timed

# (timestep, sample (1, 3, n, H, W) of one tile of one window) -> the sample to go on with
OnPart = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Job:
    """What enlarging one video takes beside its frames.

    After each step of each tile of each window ``on_frames`` is called with the number of frames that this is worth,
    mostly a fraction, which add up to all; and ``on_part``, whose answer replaces the sample.
    """

    seed: int
    settings: StageSettings
    fps: float | None = None
    on_frames: Callable[[float], None] | None = None
    on_part: OnPart | None = None


@dataclass(frozen=True)
class SuperResolutionConfig:
    """What a network was trained for, and how its input is cut up.

    ``scale``: how many times larger each side becomes. ``residual_std``: 0 where the network diffuses the picture
    itself (Karlo); above 0 where it diffuses (picture - enlarged picture) / ``residual_std`` (SRDiff, arXiv:2104.14951,
    section 3.2), which a small network learns much sooner. ``tile`` and ``tile_overlap``: sides in pixels of the tiles
    in which pictures larger than one are made, and what neighbours share: memory follows from them, not from pictures.
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
    def generators(self, seed: int, first: int, count: int, place: str = "") -> list[torch.Generator]:
        """One generator for each of the frames ``first`` to ``first + count`` of a video, fresh; others per place."""

    def share(self) -> float:
        """How much of the first noise all frames have in common."""
        return 0.0

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """A network comes with its temporal layers where the folder has them."""
        if "unet" in role and (folder / _TEMPORAL_NAME).is_file():
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
        steps = settings.num_inference_steps
        windows = count_windows(state.frames.shape[2], *self.window())
        total = windows * steps * self.count_tiles(*state.frames.shape[-2:])
        videos = []
        for video, seed in enumerate(state.seeds):
            calls = itertools.count(1)

            def on_part(timestep: Tensor, sample: Tensor, video: int = video, calls: Iterator[int] = calls) -> Tensor:
                call = next(calls)
                return on_step(video, (call * steps - 1) // total, timestep, sample, call / total)

            job = Job(seed, settings, state.fps, on_part=on_part)
            videos.append(torch.cat(list(self._stream([state.frames[video]], job)), dim=1))
        return replace(state, frames=torch.stack(videos), passed=(*state.passed, self.name))

    def stream(
        self,
        chunks: Iterable[Tensor],
        seed: int,
        settings: StageSettings,
        on_frames: Callable[[float], None] | None = None,
        fps: float | None = None,
    ) -> Iterator[Tensor]:
        """Enlarge a video of any length and size, holding a window of its frames and one tile of theirs at a time.

        Args:
            chunks: (3, n, h, w) float32 in [-1, 1], in order, any n >= 1; how they are cut has no influence.
            seed: of the video.
            settings: steps, and the level of noise on the low-resolution frames.
            on_frames: called after each step of each tile with the number of frames that it is worth, mostly a
                fraction; they add up to all.
            fps: frames per second, which a network with a frame-rate embedding is told.

        Yields:
            (3, 1, scale h, scale w) float32 in [-1, 1] on the CPU, in order; as many frames in all. Those of more than
            one tile have lain in a temporary file, as 16-bit numbers.

        Raises:
            InputError: chunks that are no frames, a network with other channels, or a noise level it is not told of.
        """
        return self._stream(chunks, Job(seed, settings, fps, on_frames))

    def upscale(self, frames: Tensor, seed: int, settings: StageSettings, fps: float | None = None) -> Tensor:
        """A video (3, F, h, w) in [-1, 1] in one piece -> (3, F, scale h, scale w); see :meth:`stream`."""
        return torch.cat(list(self.stream([frames], seed, settings, None, fps)), dim=1)

    def count_tiles(self, height: int, width: int) -> int:
        """In how many tiles frames of ``height`` x ``width`` pixels are enlarged."""
        return count_tiles(height, width, *self._tile())

    def store_bytes(self, height: int, width: int) -> int:
        """Size of the temporary files beside frames of ``height`` x ``width`` pixels while they are enlarged."""
        if self.count_tiles(height, width) == 1:
            return 0
        window, overlap = self.window()
        return (2 if overlap else 1) * window * height * width * self.config.scale**2 * BYTES_PER_PIXEL

    def seconds(self, num_frames: int, height: int, width: int, settings: StageSettings) -> float:
        """How long so many frames of ``height`` x ``width`` pixels will take here, in seconds: a small tile is timed.

        The stage must be loaded.
        """
        window, overlap = self.window()
        count = min(window, num_frames)
        tile = self._tile()[0]
        sides = [min(side, max(tile // 2, _PROBE // self.config.scale)) for side in (height, width)]
        seen = num_frames + overlap * (count_windows(num_frames, window, overlap) - 1)
        parts = tiles_of(height, width, *self._tile())
        pixels = sum((one.rows.stop - one.rows.start) * (one.columns.stop - one.columns.start) for one in parts)
        frames = torch.rand(count, 3, *sides) * 2 - 1
        for _ in range(2):  # the first time kernels are chosen and buffers made
            start = time.perf_counter()
            made = self._enlarged(frames, 0, Job(0, settings), Place.everything(*sides), None)
            if self.count_tiles(height, width) > 1:
                store = FrameStore(count, *made.shape[2:])
                store.blend(slice(0, store.height), slice(0, store.width), made, torch.ones(made.shape[2:]))
        taken = time.perf_counter() - start
        return taken * seen / count * pixels / (sides[0] * sides[1])

    def _tile(self) -> tuple[int, int]:
        """Side of a tile and overlap, in low-resolution pixels; sides are such that the network needs no padding."""
        scale, network = self.config.scale, self.components.get(self.unet_role)
        step = 1 if network is None else math.lcm(layout_of(network).multiple, scale) // scale
        tile = max(step, self.config.tile // scale // step * step)
        return tile, -(-self.config.tile_overlap // scale)

    def _stream(self, chunks: Iterable[Tensor], job: Job) -> Iterator[Tensor]:
        window, overlap = self.window()
        told = made = 0.0

        def tell(frames: float) -> None:
            nonlocal told
            told += frames
            if job.on_frames is not None:
                job.on_frames(frames)

        def process(frames: Tensor, first: int) -> Frames:
            new = window - overlap if len(frames) == window else len(frames)
            return self._window(frames, first, replace(job, on_frames=tell), new)

        for chunk in windowed(chunks, window, overlap, process):
            made += chunk.shape[1]
            yield chunk
        if made - told > 1e-6:
            tell(made - told)

    def _window(self, frames: Tensor, first: int, job: Job, new: int) -> Frames:
        """(n, 3, h, w) -> n larger frames, ``first`` being the number of the first one, ``new`` those not made yet."""
        height, width = frames.shape[-2:]
        steps = self.count_tiles(height, width) * job.settings.num_inference_steps

        def on_step(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
            if job.on_frames is not None:
                job.on_frames(new / steps)
            if job.on_part is None:
                return sample
            return job.on_part(timestep, sample.transpose(0, 1)[None])[0].transpose(0, 1).contiguous()

        if steps == job.settings.num_inference_steps:
            return self._enlarged(frames, first, job, Place.everything(height, width), on_step)
        scale = self.config.scale
        store = FrameStore(len(frames), height * scale, width * scale)
        for tile in tiles_of(height, width, *self._tile(), scale):
            made = self._enlarged(frames, first, job, Place.of(tile, height, width), on_step)
            store.blend(*tile.times(scale), made, tile.share)
        return store

    @torch.no_grad()
    def _enlarged(
        self,
        frames: Tensor,
        first: int,
        job: Job,
        place: Place,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        """(n, 3, h, w) -> what lies at ``place``, (n, 3, H, W), ``first`` being the number of the first frame."""
        network, scheduler = self.components[self.unet_role], self.components[self.scheduler_role]
        layout, scale, steps = layout_of(network), self.config.scale, job.settings.num_inference_steps
        level = level_of(job.settings.noise_level, layout, int(scheduler.config.num_train_timesteps))
        generators = self.generators(job.seed, first, len(frames), place.name)
        low = frames[..., place.around[0], place.around[1]].to(network.device, torch.float32)
        base = padded(place.cut(enlarge(low, scale), scale), layout.multiple)
        noise = self._noise(base.shape[1:], job.seed, first, generators, place).to(low.device)
        told = base
        if level:
            corner = (place.around[0].start, place.around[1].start)
            grain = place.noise(low.shape[1:], self._drawn(job.seed, first, generators, place, "/grain"), corner)
            levels = torch.full((len(low),), level)
            grained = enlarge(augment(low, grain.to(low.device), levels, _alphas(scheduler)), scale)
            told = padded(place.cut(grained, scale), layout.multiple)
        step = self._network_call(told, level, steps, job.fps)
        made = denoise(scheduler, step, noise, steps, generators, on_step)
        pictures = base + self.config.residual_std * made if self.config.residual_std else made
        height, width = ((part.stop - part.start) * scale for part in (place.rows, place.columns))
        return pictures[..., :height, :width].clamp(-1, 1).cpu()

    def _noise(
        self, shape: Sequence[int], seed: int, first: int, generators: list[torch.Generator], place: Place
    ) -> Tensor:
        """The first noise (n, 3, H, W), for ``shape`` (3, H, W)."""
        corner = (place.rows.start * self.config.scale, place.columns.start * self.config.scale)
        own = place.noise(shape, self._drawn(seed, first, generators, place), corner)
        share = self.share()
        if not share:
            return own
        common = place.noise(shape, lambda name: [stage_generator(seed, f"{self.name}/shared{name}")], corner)
        return mix_noise(own, common, share)

    def _drawn(
        self, seed: int, first: int, generators: list[torch.Generator], place: Place, what: str = ""
    ) -> Generators:
        """Where a place's noise comes from: of a whole picture from ``generators``, one draw after the other."""
        if place.whole:
            return lambda name: generators
        return lambda name: self.generators(seed, first, len(generators), what + name)

    def _network_call(
        self, told: Tensor, level: int, num_steps: int, fps: float | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """(sample (n, 3, H, W), timestep) -> prediction; the last step may have a network of its own."""
        network = self.components[self.unet_role]
        last = self.components.get(self.last_unet_role)
        last_timestep = _last_timestep(self.components[self.scheduler_role], num_steps) if last is not None else None
        levels = torch.full((1,), level)

        def call(sample: Tensor, timestep: Tensor) -> Tensor:
            chosen = last if last is not None and float(timestep) == last_timestep else network
            video, beside = sample.transpose(0, 1)[None], told.transpose(0, 1)[None]
            return predict(chosen, video, beside, timestep, levels, _rate(chosen, fps))[0].transpose(0, 1)

        return call


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
