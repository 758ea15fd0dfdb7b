"""What SR_l^t and SR_h have in common: frames in, larger frames out, a window of frames at a time."""

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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

# (timestep, sample (1, 3, n, H, W) of a tile of a window, how many frames are done by then) -> the sample to go on with
OnPart = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Job:
    """What enlarging one video takes beside its frames.

    ``num_frames``: how many there are, 0 where nobody knows. ``on_part`` is called after each step of each tile of each
    window; frames that are done count in fractions.
    """

    seed: int
    settings: StageSettings
    fps: float | None = None
    num_frames: int = 0
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

    makes_frames: ClassVar[bool] = True
    enlarges: ClassVar[bool] = True
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

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        """Enlarge a video of any length and size, holding a window of its frames and one tile of theirs at a time.

        Frames come one by one; those of more than one tile have lain in a temporary file, as 16-bit numbers.

        Raises:
            InputError: chunks that are no frames, a network with other channels, or a noise level it is not told of.
        """
        if chunks is None:
            raise InputError("Super-resolution needs frames: give a video, or a cascade with a decoder.")
        count, steps = state.num_frames, settings.num_inference_steps

        def on_part(timestep: Tensor, sample: Tensor, done: float) -> Tensor:
            share = min(1.0, done / count) if count else 0.0
            return on_step(video, max(0, math.ceil(share * steps - 1e-6) - 1), timestep, sample, share)

        # A state without a rate has 0; nothing can be told then.
        yield from self.enlarged(chunks, Job(state.seeds[video], settings, state.fps or None, count, on_part))

    def upscale(self, frames: Tensor, seed: int, settings: StageSettings, fps: float | None = None) -> Tensor:
        """A video (3, F, h, w) in [-1, 1] in one piece -> (3, F, scale h, scale w), on the CPU.

        Args:
            frames: the video.
            seed: of the video.
            settings: steps, and the level of noise on the low-resolution frames.
            fps: frames per second, which a network with a frame-rate embedding is told.

        Raises: as :meth:`stream`.
        """
        return torch.cat(list(self.enlarged([frames], Job(seed, settings, fps))), dim=1)

    def count_tiles(self, height: int, width: int) -> int:
        """In how many tiles frames of ``height`` x ``width`` pixels are enlarged."""
        return count_tiles(height, width, *self._tile())

    def store_bytes(self, height: int, width: int) -> int:
        """Size of the temporary files beside frames of ``height`` x ``width`` pixels while they are enlarged."""
        if self.count_tiles(height, width) == 1:
            return 0
        window, overlap = self.window()
        return (2 if overlap else 1) * window * height * width * self.config.scale**2 * BYTES_PER_PIXEL

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        """As of :class:`Stage`: a small tile is timed."""
        num_frames, (window, overlap) = state.num_frames, self.window()
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

    def enlarged(self, chunks: Iterable[Tensor], job: Job) -> Iterator[Tensor]:
        """As :meth:`stream`, of one video whose frames come in chunks (3, n, h, w)."""
        window, overlap = self.window()

        def process(frames: Tensor, first: int) -> Frames:
            # Frames that a window shares with the next one are done with that.
            last = len(frames) < window or first + window == job.num_frames
            new = len(frames) if last else window - overlap
            return self._window(frames, first, job, new)

        return windowed(chunks, window, overlap, process)

    def _window(self, frames: Tensor, first: int, job: Job, new: int) -> Frames:
        """(n, 3, h, w) -> n larger frames, ``first`` being the number of the first one, ``new`` those then done."""
        height, width = frames.shape[-2:]
        steps = self.count_tiles(height, width) * job.settings.num_inference_steps
        calls = itertools.count(1)

        def on_step(step: int, timestep: Tensor, sample: Tensor) -> Tensor:
            done = first + new * next(calls) / steps
            if job.on_part is None:
                return sample
            return job.on_part(timestep, sample.transpose(0, 1)[None], done)[0].transpose(0, 1).contiguous()

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
