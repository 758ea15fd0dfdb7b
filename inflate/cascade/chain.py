"""The composed chain of Make-A-Video (arXiv:2209.14792, eq. 1): stages one after the other.

A cascade knows only order, seeds, progress and memory: a stage's weights are there while it runs. How a stage samples
is the stage's own business. On disk it is a diffusers pipeline folder.
"""

import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.cascade.applications import Applications
from inflate.cascade.folder import family_folder, read_index, read_stages, write_folder
from inflate.cascade.inputs import Generators, Picture, Segments, Timing, begun, first_state
from inflate.cascade.long import MAX_STREAMED_FRAMES, FrameStream, stream_video
from inflate.cascade.output import (
    CascadeOutput,
    OutputType,
    Progress,
    StageCallback,
    StepCallback,
    as_output,
    check_output_type,
    tell_end,
)
from inflate.cascade.pipelines import PIPELINES
from inflate.cascade.role_file import is_role_file, read_role_file
from inflate.cascade.roles import choose_weights, read_pipeline, stages_of_roles
from inflate.diffusion.guidance import GuidanceOptions
from inflate.errors import InputError, nearest
from inflate.stages import ChainState, OnStep, Stage, StageSettings

_PLAIN = GuidanceOptions()


class Cascade(Applications):
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
        # Several threads may share a cascade, and streams be read by turns: one stage runs at a time, and weights are
        # let go of when nobody uses them any more. Copies (``sized``) share both.
        self._turn = threading.RLock()
        self._users: Counter[str] = Counter()

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        keep_loaded: bool = False,
        variant: str | None = None,
    ) -> "Cascade":
        """The cascade in a pipeline folder, one that ships inside the package (``bundled:emoji``), or a role file's.

        The folder may also be somebody's pipeline (Stable Diffusion, Karlo, …), inflated or not: then it plays what
        stages it can. A role file (``.toml``) says what plays each stage; see :mod:`inflate.cascade.role_file`.
        Only ``model_index.json`` and configs are read here; weights are read when their stage runs. ``variant`` says
        which, such as "fp16", of components that have weights in several; the plain ones by default.

        Raises:
            InputError: no such folder or name, its index is damaged or names what no stage knows, or no component has
                weights of ``variant``.
        """
        cascade = cls._opened(folder_or_name, device, dtype, keep_loaded)
        if variant is not None:
            stages: Any = cascade.stages
            choose_weights(stages, variant, str(folder_or_name))
        return cascade

    @classmethod
    def _opened(
        cls, folder_or_name: str | Path, device: torch.device | str | None, dtype: torch.dtype | None, keep_loaded: bool
    ) -> "Cascade":
        if is_role_file(folder_or_name):
            file = read_role_file(Path(folder_or_name).expanduser())
            stages: Any = stages_of_roles(file, str(folder_or_name))
            return cls(stages, device, dtype, keep_loaded, file.name)
        folder = family_folder(folder_or_name)
        index = read_index(folder)
        if index.get("_class_name") in PIPELINES:
            return cls(read_pipeline(folder, index), device, dtype, keep_loaded, folder.name)
        cascade = cls(read_stages(folder, index), device, dtype, keep_loaded, index.get("family"))
        cascade.folder = folder
        return cascade

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_frames: int = 16,
        fps: float = 8,
        generator: Generators = None,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        image_embeds: Tensor | None = None,
        frame_skip: int = 5,
        callback_on_stage_end: StageCallback | None = None,
        segments: Segments = (),
        guidance_rescale: float | Mapping[str, float] | None = None,
        guidance_oscillate: float | Mapping[str, float] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        init_image: Picture | None = None,
        strength: float = 0.8,
    ) -> CascadeOutput:
        """Make one video per prompt; for one that does not fit into memory see :meth:`stream`.

        Args:
            prompt: one, or several.
            num_frames: frames that the decoder makes per video.
            fps: frames per second that these are made for.
            generator: one from which each video's seed is drawn, or one per video. A stage's noise follows from its
                video's seed alone, so neither other stages' steps nor other prompts change it.
            num_inference_steps: for every stage, or by stage name; stages have defaults of their own.
            guidance_scale: likewise; 1 is without guidance.
            output_type: see :class:`CascadeOutput`.
            callback_on_step_end: called after each sampling step as diffusers does; see ``StepCallback``.
            until: name of the last stage to run.
            image_embeds: (B, D), instead of prompts: the chain then starts after the prior.
            frame_skip: where there is frame interpolation, it makes ``(num_frames - 1) * frame_skip + 1`` frames at
                ``fps * frame_skip``; 1 leaves it out.
            callback_on_stage_end: called after each stage with what there is so far; see ``StageCallback``.
            segments: what every video shows later on, (seconds, prompt) each; only for more frames than the decoder
                sees at once.
            guidance_rescale, guidance_oscillate, threshold: for the decoder, or by stage; see ``GuidanceOptions``.
            init_image: what every frame of the decoder begins as; its centre is cut to the frames' shape.
            strength: how far they go from there, above 0 to 1: the share of the decoder's steps that are left.

        Raises:
            InputError: bad arguments.
            CancelledError: a callback returned False.
        """
        check_output_type(output_type)
        timing, nothing = Timing(num_frames, fps, frame_skip), self.told_nothing()
        state = first_state(prompt, image_embeds, timing, generator, segments, nothing)
        state = begun(state, self.stage("decoder"), init_image, strength)
        settings = self.settings(num_inference_steps, guidance_scale, guidance_rescale, guidance_oscillate, threshold)
        state = self.run(state, settings, callback_on_step_end, until, callback_on_stage_end)
        frames = None if state.frames is None else as_output(state.frames, output_type)
        return CascadeOutput(frames, state.fps, state.image_embeds)

    def stream(
        self,
        prompt: str | None = None,
        num_frames: int = 16,
        fps: float = 8,
        generator: torch.Generator | None = None,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        frame_skip: int = 5,
        segments: Segments = (),
        guidance_rescale: float | Mapping[str, float] | None = None,
        guidance_oscillate: float | Mapping[str, float] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        init_image: Picture | None = None,
        strength: float = 0.8,
    ) -> FrameStream:
        """Make one video of any length, in memory that does not grow with it; arguments as in a call.

        Between two stages frames lie in a temporary file, as 8-bit pixels. Nothing runs before the first chunk is asked
        for.

        Raises:
            InputError: bad arguments, or ``until`` names a stage before the decoder.
        """
        timing = Timing(num_frames, fps, frame_skip, MAX_STREAMED_FRAMES)
        state = first_state(prompt, None, timing, generator, segments, self.told_nothing())
        state = begun(state, self.stage("decoder"), init_image, strength)
        settings = self.settings(num_inference_steps, guidance_scale, guidance_rescale, guidance_oscillate, threshold)
        return stream_video(self, state, settings, callback_on_step_end, until)

    def run(
        self,
        state: ChainState,
        settings: Mapping[str, StageSettings] | None = None,
        callback_on_step_end: StepCallback | None = None,
        until: str | None = None,
        callback_on_stage_end: StageCallback | None = None,
    ) -> ChainState:
        """Run the stages whose work ``state`` does not hold yet, up to and with ``until``."""
        settings = settings or self.settings()
        todo = [stage for stage in self.up_to(until) if not stage.done(state)]
        works = [stage.work(state, settings[stage.name]) for stage in todo]
        for number, stage in enumerate(todo):
            with self.running(stage):
                on_step = self.step_callback(todo, works, number, state, settings, callback_on_step_end)
                state = stage(state, settings[stage.name], on_step)
            tell_end(callback_on_stage_end, self, stage.name, state)
        return state

    def settings(
        self,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        guidance_rescale: float | Mapping[str, float] | None = None,
        guidance_oscillate: float | Mapping[str, float] | None = None,
        threshold: float | Mapping[str, float] | None = None,
    ) -> dict[str, StageSettings]:
        """Each stage's sampling settings by its name: its defaults, changed by a number or by numbers by name.

        A number is for all stages, or for the decoder if it is one of ``GuidanceOptions``.

        Raises:
            InputError: a bad number, or a stage that there is not, or that knows no such option.
        """
        every = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        some = {"guidance_rescale": guidance_rescale, "guidance_oscillate": guidance_oscillate, "threshold": threshold}
        chosen = {what: self._by_stage(what, value) for what, value in every.items()}
        for what, value in some.items():
            alone = value if value is None or isinstance(value, Mapping) else {"decoder": value}
            chosen[what] = self._by_stage(what, alone)
        found = {}
        for stage in self.stages:
            changes = {what: values[stage.name] for what, values in chosen.items() if stage.name in values}
            found[stage.name] = replace(stage.defaults, **changes)
            odd = [what for what in some if getattr(found[stage.name], what) != getattr(_PLAIN, what)]
            if odd and not getattr(stage, "guidance_options", False):
                raise InputError(f"The stage {stage.name!r} knows no {odd[0]}; give it to the decoder alone.")
        return found

    def load_lora(self, path: str | Path, weight: float = 1.0) -> str:
        """Add a LoRA to the decoder: of its image model and text encoders, or of its motion module (MotionLoRA).

        Several add up. They are merged into the weights: at once into networks that are in memory (of ready-made
        stages these are your own objects), and into others each time they are read. Weight 0 changes no bit.

        Args:
            path: a .safetensors file of diffusers, PEFT or kohya; which kind it is its content says.
            weight: how much of it is added, beside its own alpha over its rank; may be negative.

        Returns:
            "image" or "motion".

        Raises:
            InputError: no LoRA, one that does not fit this decoder, or there is none; nothing has changed then.
        """
        decoder: Any = self.stage("decoder")
        if decoder is None:
            raise InputError("This cascade has no decoder, to which LoRAs are added.")
        with self._turn:
            return decoder.add_lora(Path(path).expanduser(), weight)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write the cascade as a pipeline folder, which appears whole or not at all.

        Raises:
            InputError: ``folder`` exists and ``overwrite`` is not set.
        """
        write_folder(Path(folder), self.stages, self.family, self.folder, overwrite)

    def up_to(self, until: str | None) -> tuple[Stage, ...]:
        """The stages up to and with ``until``; all for None."""
        names = [stage.name for stage in self.stages]
        if until is None:
            return self.stages
        if until not in names:
            raise InputError(f"until={until!r} is no stage here{nearest(until, names)}; it has {', '.join(names)}.")
        return self.stages[: names.index(until) + 1]

    @contextmanager
    def loaded(self, stage: Stage, roles: Sequence[str] | None = None) -> Iterator[Stage]:
        """Hold a stage's weights in memory, or those of some of its components only; the last user releases them.

        To run it too takes a turn (:meth:`running`, :meth:`making`).
        """
        with self._turn:
            self._users[stage.name] += 1
        try:
            with self._turn:
                stage.load(self.device, self.dtype, roles)
            yield stage
        finally:
            with self._turn:
                self._users[stage.name] -= 1
                if not (self.keep_loaded or self._users[stage.name]):
                    stage.release()

    @contextmanager
    def running(self, stage: Stage, roles: Sequence[str] | None = None) -> Iterator[Stage]:
        """Hold a stage's weights, and let no other stage run meanwhile."""
        with self._turn, self.loaded(stage, roles):
            yield stage

    def making(self, stage: Stage, made: Generator[Tensor]) -> Iterator[Tensor]:
        """What a stage makes chunk by chunk, its weights being held until the end; no other stage runs meanwhile.

        Others may run between two chunks, so that a stream that nobody reads on with stops nobody.
        """
        with self.loaded(stage), closing(made):
            while True:
                with self._turn, torch.no_grad():
                    chunk = next(made, None)
                if chunk is None:
                    return
                yield chunk

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

    def step_callback(
        self,
        todo: Sequence[Stage],
        works: Sequence[float],
        number: int,
        state: ChainState,
        settings: Mapping[str, StageSettings],
        callback: StepCallback | None,
    ) -> OnStep:
        """The ``OnStep`` of the stage ``number`` of ``todo``, whose sizes are ``works``: it tells the callback."""
        stage, videos = todo[number], len(state.seeds)
        steps = settings[stage.name].num_inference_steps

        def on_step(video: int, step: int, timestep: Tensor, sample: Tensor, done: float | None = None) -> Tensor:
            if callback is None:
                return sample
            share = min(1.0, (video + ((step + 1) / steps if done is None else done)) / videos)
            fraction = (sum(works[:number]) + works[number] * share) / sum(works)
            progress = Progress(stage.name, number, len(todo), video, videos, step, steps, fraction)
            answer = callback(self, step, timestep, {"latents": sample, "progress": progress})
            if answer is False:
                raise CancelledError(f"cancelled in {stage.name}, step {step + 1} of {steps}")
            return answer.get("latents", sample) if isinstance(answer, dict) else sample

        return on_step
