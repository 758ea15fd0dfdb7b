"""The composed chain of Make-A-Video (arXiv:2209.14792, eq. 1): stages one after the other.

A cascade knows only order, seeds, progress and memory: a stage's weights are there while it runs. How a stage samples
is the stage's own business. On disk it is a diffusers pipeline folder.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inflate.checkpoint import resolve_path
from inflate.errors import InputError, nearest
from inflate.stages import CancelledError, ChainState, Stage, StageSettings, stage_class, stages_of
from inflate.video import to_uint8

INDEX_NAME = "model_index.json"
_OUTPUT_TYPES = ("pil", "np", "pt")
_MAX_FRAMES = 1024
_CARRIED_FILES = ("README.md", "LICENSE", "NOTICE")

Frames = list[list[Image.Image]] | np.ndarray | Tensor


@dataclass(frozen=True)
class CascadeOutput:
    """What a cascade made, for B prompts.

    ``frames``: for "pil" a list of B lists of F pictures; for "np" (B, F, H, W, C) and for "pt" (B, F, C, H, W),
    float32 in [0, 1]; None if the chain was stopped before there were any.
    ``image_embeds``: (B, D), unit norm, or None.
    """

    frames: Frames | None
    fps: float
    image_embeds: Tensor | None


@dataclass(frozen=True)
class Progress:
    """Where a running cascade is; a callback gets it as ``callback_kwargs["progress"]``."""

    stage: str
    stage_index: int  # of the stages that run, from 0
    num_stages: int
    video: int  # from 0
    num_videos: int
    step: int  # the one just done, from 0
    num_steps: int
    fraction: float  # of the whole job's network evaluations, 0 to 1


# (cascade, step, timestep, {"latents": ..., "progress": ...}) as diffusers calls it. A returned dict may hold other
# "latents" to go on with; False cancels.
StepCallback = Callable[["Cascade", int, Tensor, dict[str, Any]], dict[str, Any] | bool | None]


class Cascade:
    """Stages in the order of the chain, called as one: ``cascade("party popper", fps=8).frames[0]``."""

    def __init__(
        self,
        stages: Sequence[Stage],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_loaded: bool = False,
        family: str | None = None,
    ) -> None:
        """A chain of ready stages.

        Args:
            stages: in order; each name once.
            device: default is CUDA where there is one, else the CPU.
            dtype: number format of the networks, default float32.
            keep_loaded: keep a stage's weights in memory between calls rather than release them after it ran.
            family: the name these weights go by.
        """
        names = [stage.name for stage in stages]
        if not names or len(set(names)) != len(names):
            raise InputError(f"A cascade needs at least one stage, each name once; got {names}.")
        self.stages = tuple(stages)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or torch.float32
        self.keep_loaded = keep_loaded
        self.family = family
        self.folder: Path | None = None
        # Several threads may share a cascade: one stage runs at a time.
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_loaded: bool = False,
    ) -> "Cascade":
        """The cascade in a pipeline folder, or one that ships inside the package (``bundled:emoji``).

        Only ``model_index.json`` is read here; weights are read when their stage runs.

        Raises:
            InputError: no such folder or name, or its index is damaged or names what no stage knows.
        """
        folder = family_folder(folder_or_name)
        index = _read_index(folder)
        components = {
            role: (str(entry[0]), str(entry[1]))
            for role, entry in index.items()
            if isinstance(entry, list) and not role.startswith("_") and entry != [None, None]
        }
        where = str(folder / INDEX_NAME)
        names = stages_of(components, where)
        defaults = _read_defaults(index.get("stage_defaults", {}), names, where)
        stages = [stage_class(name).from_folder(folder, components, defaults.get(name)) for name in names]
        cascade = cls(stages, device, dtype, keep_loaded, index.get("family"))
        cascade.folder = folder
        return cascade

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_frames: int = 16,
        fps: float = 8,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        image_embeds: Tensor | None = None,
    ) -> CascadeOutput:
        """Make one video per prompt.

        Args:
            prompt: one, or several.
            num_frames: frames per video.
            fps: frames per second that the video is made for.
            generator: one from which each video's seed is drawn, or one per video. A stage's noise follows from its
                video's seed alone, so neither other stages' steps nor other prompts change it.
            num_inference_steps: for every stage, or by stage name; stages have defaults of their own.
            guidance_scale: likewise; 1 is without guidance.
            output_type: see :class:`CascadeOutput`.
            callback_on_step_end: called after each sampling step as diffusers does; see ``StepCallback``.
            until: name of the last stage to run.
            image_embeds: (B, D), instead of prompts: the chain then starts after the prior.

        Raises:
            InputError: bad arguments.
            CancelledError: the callback returned False.
        """
        if output_type not in _OUTPUT_TYPES:
            hint = nearest(str(output_type), _OUTPUT_TYPES)
            raise InputError(f"output_type {output_type!r} is unknown{hint}; use {', '.join(_OUTPUT_TYPES)}.")
        state = _first_state(prompt, image_embeds, num_frames, fps, generator)
        state = self.run(state, self.settings(num_inference_steps, guidance_scale), callback_on_step_end, until)
        frames = None if state.frames is None else _as_output(state.frames, output_type)
        return CascadeOutput(frames, state.fps, state.image_embeds)

    def run(
        self,
        state: ChainState,
        settings: Mapping[str, StageSettings] | None = None,
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
    ) -> ChainState:
        """Run the stages whose work ``state`` does not hold yet, up to and with ``until``."""
        settings = settings or self.settings()
        todo = [stage for stage in self._up_to(until) if not stage.done(state)]
        works = [stage.work(state, settings[stage.name]) for stage in todo]
        for number, stage in enumerate(todo):
            with self._lock, self._loaded(stage):
                on_step = self._on_step(todo, works, number, state, settings, callback_on_step_end)
                state = stage(state, settings[stage.name], on_step)
        return state

    def settings(
        self,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
    ) -> dict[str, StageSettings]:
        """Each stage's sampling settings by its name: its defaults, changed by a number for all or numbers by name."""
        steps = self._by_stage("num_inference_steps", num_inference_steps)
        scales = self._by_stage("guidance_scale", guidance_scale)
        return {
            stage.name: replace(
                stage.defaults,
                num_inference_steps=steps.get(stage.name, stage.defaults.num_inference_steps),
                guidance_scale=scales.get(stage.name, stage.defaults.guidance_scale),
            )
            for stage in self.stages
        }

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write the cascade as a pipeline folder, which appears whole or not at all.

        Raises:
            InputError: ``folder`` exists and ``overwrite`` is not set.
        """
        from inflate import __version__

        folder = Path(folder)
        if folder.exists() and not overwrite:
            raise InputError(f"{folder} exists; name another folder, or ask for it to be overwritten.")
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        partial.mkdir(parents=True)
        try:
            index: dict[str, Any] = {"_class_name": "Cascade", "_inflate_version": __version__, "family": self.family}
            for stage in self.stages:
                index |= stage.save(partial)
            index["stage_defaults"] = {stage.name: vars(stage.defaults) for stage in self.stages}
            for name in _CARRIED_FILES:
                if self.folder is not None and (self.folder / name).is_file():
                    shutil.copy(self.folder / name, partial / name)
            (partial / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _up_to(self, until: str | None) -> tuple[Stage, ...]:
        names = [stage.name for stage in self.stages]
        if until is None:
            return self.stages
        if until not in names:
            raise InputError(f"until={until!r} is no stage here{nearest(until, names)}; it has {', '.join(names)}.")
        return self.stages[: names.index(until) + 1]

    def _by_stage(self, what: str, value: Any) -> dict[str, Any]:
        names = [stage.name for stage in self.stages]
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return dict.fromkeys(names, value)
        for name in value:
            if name not in names:
                raise InputError(f"{what} names {name!r}{nearest(name, names)}; the stages are {', '.join(names)}.")
        return dict(value)

    @contextmanager
    def _loaded(self, stage: Stage):
        try:
            stage.load(self.device, self.dtype)
            yield
        finally:
            if not self.keep_loaded:
                stage.release()

    def _on_step(
        self,
        todo: Sequence[Stage],
        works: Sequence[int],
        number: int,
        state: ChainState,
        settings: Mapping[str, StageSettings],
        callback: StepCallback | None,
    ) -> Callable[[int, int, Tensor, Tensor], Tensor]:
        stage, videos = todo[number], len(state.seeds)
        steps = settings[stage.name].num_inference_steps

        def on_step(video: int, step: int, timestep: Tensor, sample: Tensor) -> Tensor:
            if callback is None:
                return sample
            share = min(1.0, (video * steps + step + 1) / (videos * steps))
            fraction = (sum(works[:number]) + works[number] * share) / sum(works)
            progress = Progress(stage.name, number, len(todo), video, videos, step, steps, fraction)
            answer = callback(self, step, timestep, {"latents": sample, "progress": progress})
            if answer is False:
                raise CancelledError(f"cancelled in {stage.name}, step {step + 1} of {steps}")
            return answer.get("latents", sample) if isinstance(answer, dict) else sample

        return on_step


def family_folder(folder_or_name: str | Path) -> Path:
    """The folder of a family: a path as it is, ``bundled:NAME`` inside the package.

    Raises:
        InputError: no such folder, or no such bundled family.
    """
    folder = resolve_path(folder_or_name)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name a cascade's folder or a bundled family (bundled:emoji).")
    return folder


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a cascade's folder: it has no {INDEX_NAME}.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if not isinstance(index, dict) or any(isinstance(entry, list) and len(entry) != 2 for entry in index.values()):
        raise InputError(f"{path} must be an object that gives [library, class] for each component.")
    return index


def _read_defaults(raw: Any, names: list[str], where: str) -> dict[str, StageSettings]:
    defaults = {}
    for name, values in raw.items():
        if name not in names:
            raise InputError(f"{where}: stage_defaults names {name!r}{nearest(name, names)}; it has {names}.")
        try:
            defaults[name] = StageSettings(**values)
        except TypeError as error:
            raise InputError(f"{where}: stage_defaults of {name!r} are not understood ({error}).") from error
    return defaults


def _first_state(
    prompt: str | Sequence[str] | None,
    image_embeds: Tensor | None,
    num_frames: int,
    fps: float,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> ChainState:
    prompts = () if prompt is None else (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if (not prompts) == (image_embeds is None):
        raise InputError("Give a prompt or image_embeds, and not both.")
    if any(not isinstance(text, str) or not text.strip() for text in prompts):
        raise InputError("A prompt is empty; say in a few words what the video should show.")
    if not isinstance(num_frames, int) or not 1 <= num_frames <= _MAX_FRAMES:
        raise InputError(f"num_frames must be a whole number from 1 to {_MAX_FRAMES}, got {num_frames}.")
    if not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}.")
    count = len(prompts) if image_embeds is None else len(image_embeds)
    if isinstance(generator, Sequence) and len(generator) != count:
        raise InputError(f"{count} videos need one generator, or as many; got {len(generator)}.")
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * count
    seeds = tuple(_draw_seed(one) for one in generators)
    return ChainState(prompts, seeds, num_frames, float(fps), image_embeds=image_embeds)


def _draw_seed(generator: torch.Generator | None) -> int:
    device = None if generator is None else generator.device
    return int(torch.randint(0, 2**62, (), generator=generator, device=device, dtype=torch.int64))


def _as_output(frames: Tensor, output_type: str) -> Frames:
    if output_type == "pil":
        return [[Image.fromarray(picture) for picture in video] for video in to_uint8(frames)]
    frames = ((frames + 1) / 2).clamp(0, 1)
    if output_type == "np":
        return frames.permute(0, 2, 3, 4, 1).numpy()
    return frames.transpose(1, 2)
