"""↑F as a stage of the chain: more frames than the decoder made, or the missing ones of a video that is half known."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.autoencoder import size_multiple
from inflate.checkpoint.kinds import TEMPORAL_FILE
from inflate.checkpoint.temporal import read_temporal_info
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.segments import embeds_at
from inflate.sampling.windows import Window, plan_windows
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings, stage_generator, unchanged
from interp.folder import IMAGE_FOLDER, fits_beside, is_partial, load_interpolation, save_beside
from interp.frame_decoder import sides_of
from interp.sampling import interpolate_frames, spread_frames
from interp.streaming import interpolate_chunks

_UNET = "interpolation_unet"
_SHARED = ("scheduler", "vae")  # with the decoder, which may have written them already


@dataclass(frozen=True)
class _Pass:
    """One run over all frames: filling in the unknown at the present frame rate, or multiplying the rate."""

    label: str  # of its random numbers
    mask: Tensor  # (F,) bool, known
    windows: tuple[Window, ...]
    skip: int = 1


class InterpolationStage(ComponentStage):
    """Frame interpolation: ``frame_skip`` times the frame rate, known frames kept bit for bit.

    Where ``known_frames`` says that some frames are missing, these are made first, at the frame rate there is.
    """

    name: ClassVar[str] = "interpolation"
    makes_frames: ClassVar[bool] = True
    # A regression rather than a free choice: more steps, or guidance, would move new frames away from the true ones.
    defaults = StageSettings(num_inference_steps=4, guidance_scale=1.0)

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The network is an inflated model, whole or beside the family's own image model."""
        if role == _UNET:
            return load_interpolation(folder, self._image_folder, dtype)
        return super().read(role, folder, library, class_name, dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if not isinstance(component, InflatedModel):
            return super().write(component, folder)
        save_beside(component, folder)
        return ["inflate", "InflatedModel"]

    def save(self, folder: Path) -> dict[str, list[str]]:
        """Write each component into ``folder``, but what the decoder has written there already."""
        entries = {}
        for role in self.index or self.components:
            target = folder / role
            if role in _SHARED and target.is_dir():
                entries[role] = self._entry(role)
            elif role in self.components:
                entries[role] = self.write(self.components[role], target)
            elif role == _UNET and is_partial(self.path_of(role)) and not self._still_fits(folder):
                entries[role] = self.write(load_interpolation(self.path_of(role), self._image_folder), target)
            else:
                shutil.copytree(self.path_of(role), target)
                entries[role] = self._entry(role)
        return entries

    @property
    def _image_folder(self) -> Path | None:
        """Where a partial network's image weights are, where that is not beside it."""
        return self.paths.get(IMAGE_FOLDER)

    def _entry(self, role: str) -> list[str]:
        return list(self.index[role]) if role in self.index else ["diffusers", type(self.components[role]).__name__]

    def _still_fits(self, folder: Path) -> bool:
        return fits_beside(self.path_of(_UNET), folder / IMAGE_FOLDER)

    def done(self, state: ChainState) -> bool:
        """Whether this stage has run, or there is nothing for it to do."""
        return self.name in state.passed or (state.frame_skip == 1 and state.known_frames is None)

    def work(self, state: ChainState, settings: StageSettings) -> float:
        """One evaluation per step and frame of each window."""
        frames = state.num_frames if state.frames is None else state.frames.shape[2]
        seen = sum(len(window.frames) for one in self._passes(state, frames) for window in one.windows)
        return max(1, len(state.seeds) * settings.num_inference_steps * seen) * settings.cost

    def seconds(self, state: ChainState, height: int, width: int, settings: StageSettings) -> float:
        """As of :class:`Stage`: one window is timed."""
        window, size = self._one_window(state), self.embed_size()
        generator = stage_generator(0, self.name)
        frames = torch.rand(1, 3, window.num_frames, height, width, generator=generator) * 2 - 1
        embeds = None if size is None else torch.nn.functional.normalize(torch.randn(1, size, generator=generator))
        window = replace(window, frames=frames, image_embeds=embeds)
        for _ in range(2):  # the first time kernels are chosen and buffers made
            start = time.perf_counter()
            self(window, settings, unchanged)
        taken = time.perf_counter() - start
        return taken * self.work(state, settings) / self.work(window, settings)

    def _one_window(self, state: ChainState) -> ChainState:
        """As much of a state's work as goes through the network at once."""
        size = self.window_size()
        if state.known_frames is not None:
            mask = torch.arange(size) < size // 2
            return ChainState((), (0,), size, state.fps, frame_skip=1, known_frames=mask)
        return ChainState((), (0,), (size - 1) // state.frame_skip + 1, state.fps, frame_skip=state.frame_skip)

    def stream(
        self,
        state: ChainState,
        video: int,
        chunks: Iterable[Tensor] | None,
        settings: StageSettings,
        on_step: OnStep,
    ) -> Iterator[Tensor]:
        """All frames of a video, of which one window is held at a time unless it comes in one chunk.

        Frames that are missing are made of the whole of it.
        """
        if chunks is None:
            raise InputError("Frame interpolation needs frames: give a video, or a cascade with a decoder.")
        given = iter(chunks)
        if state.known_frames is None:
            first = next(given, None)
            if first is None:
                return
            # What is shown changes on the way where there are segments, so each window is told its own.
            if first.shape[1] < state.num_frames or state.segments:
                yield from self._by_windows(chain([first], given), state, video, settings, on_step)
                return
            given = [first]
        frames = torch.cat(list(given), dim=1)[None]
        yield self._video(state, video, frames, settings, on_step)[0]

    def after(self, state: ChainState) -> ChainState:
        """With more frames, all of them known."""
        count = (state.num_frames - 1) * state.frame_skip + 1 if state.num_frames else 0
        return replace(super().after(state), num_frames=count, fps=state.fps * state.frame_skip, known_frames=None)

    def _by_windows(
        self, chunks: Iterable[Tensor], state: ChainState, video: int, settings: StageSettings, on_step: OnStep
    ) -> Iterator[Tensor]:
        """Chunks of all frames of a video whose known frames come in chunks (3, n, H, W)."""
        steps = settings.num_inference_steps

        def embeds_of(seconds: float) -> Tensor | None:
            return None if state.image_embeds is None else embeds_at(state, video, seconds)

        def on_part(step: int, timestep: Tensor, sample: Tensor, gaps: float) -> Tensor:
            share = min(1.0, gaps / (state.num_frames - 1)) if state.num_frames > 1 else 0.0
            return on_step(video, max(0, math.ceil(share * steps) - 1), timestep, sample, share)

        yield from interpolate_chunks(
            self.components[_UNET],
            self.components.get("vae"),
            self._scheduler(),
            chunks,
            state.frame_skip,
            embeds_of,
            state.fps,
            num_inference_steps=steps,
            guidance_scale=settings.guidance_scale,
            generator=stage_generator(state.seeds[video], self.name),
            frame_decoder=self.components.get("frame_decoder"),
            on_part=on_part,
        )

    def _video(self, state: ChainState, video: int, frames: Tensor, settings: StageSettings, on_step: OnStep) -> Tensor:
        """All frames (1, 3, F, H, W) of a video, of those that there are."""
        fps, passes = state.fps, self._passes(state, frames.shape[2])
        embeds = None if state.image_embeds is None else state.image_embeds[video : video + 1]
        total, before = sum(len(one.windows) for one in passes), 0
        for one in passes:
            if one.skip > 1:
                frames, _ = spread_frames(frames, one.skip)
                fps *= one.skip
            weight = len(one.windows)

            def on_pass_step(
                step: int, timestep: Tensor, sample: Tensor, before: int = before, weight: int = weight
            ) -> Tensor:
                overall = (before * settings.num_inference_steps + step * weight) // total
                return on_step(video, overall, timestep, sample)

            frames = interpolate_frames(
                self.components[_UNET],
                self.components.get("vae"),
                self._scheduler(),
                frames,
                one.mask,
                embeds,
                fps,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                generator=stage_generator(state.seeds[video], one.label),
                on_step=on_pass_step,
                frame_decoder=self.components.get("frame_decoder"),
            ).cpu()
            before += weight
        return frames

    def _passes(self, state: ChainState, frames: int) -> list[_Pass]:
        """What there is to do for a video of so many frames."""
        size, passes = self.window_size(), []
        if state.known_frames is not None:
            if len(state.known_frames) != frames:
                raise InputError(f"known_frames speaks of {len(state.known_frames)} frames; there are {frames}.")
            mask = state.known_frames.bool()
            passes.append(_Pass(f"{self.name}/missing", mask, plan_windows(mask.tolist(), size)))
        if state.frame_skip > 1 or not passes:
            count = (frames - 1) * state.frame_skip + 1
            mask = torch.arange(count) % state.frame_skip == 0
            passes.append(_Pass(self.name, mask, plan_windows(mask.tolist(), size), state.frame_skip))
        return passes

    def embed_size(self) -> int | None:
        """Numbers in the image embeddings it is told, known without reading weights; None where no config says it."""
        config = self.component_config(_UNET)
        size = config.get("projection_class_embeddings_input_dim") or config.get("cross_attention_dim")
        return size if isinstance(size, int) else None

    def size_multiple(self) -> int:
        """What both sides of frames must be multiples of, in pixels."""
        multiple = size_multiple(self.component_config(_UNET), self.component_config("vae"))
        decoder = self.component_config("frame_decoder")
        return math.lcm(multiple, sides_of(decoder)) if decoder else multiple

    def window_size(self) -> int:
        """Frames that the network was trained on, known without reading its weights."""
        if _UNET in self.components:
            return self.components[_UNET].num_frames
        info, _ = read_temporal_info(self.path_of(_UNET) / TEMPORAL_FILE)
        return info.num_frames

    def _scheduler(self) -> Any:
        if "scheduler" not in self.components:
            raise InputError("Frame interpolation needs a scheduler, which this family's folder does not have.")
        return self.components["scheduler"]
