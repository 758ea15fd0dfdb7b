"""Who runs stages: whose turn it is, which weights are in memory, how far a job is, and whether it goes on."""

import copy
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Self, TypedDict, Unpack

import torch
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.cascade.frame_file import FrameFile
from inflate.cascade.output import Progress, StageCallback, StepCallback, tell_end
from inflate.cascade.shapes import fitting_size
from inflate.diffusion.guidance import GuidanceOptions
from inflate.errors import InputError, nearest
from inflate.stages import ChainState, OnStep, Stage, StageSettings

_PLAIN = GuidanceOptions()


class GuidanceChoice(TypedDict, total=False):
    """What a sampler may do beside guidance of one scale, for the decoder or by stage; see ``GuidanceOptions``."""

    guidance_rescale: float | Mapping[str, float] | None
    guidance_oscillate: float | Mapping[str, float] | None
    guidance_interval: tuple[float, float] | Mapping[str, tuple[float, float]] | None
    threshold: float | Mapping[str, float] | None
    reuse: int | Mapping[str, int] | None


class Runner:
    """Stages in the order of a chain, run one at a time, each with its weights in memory while it runs."""

    def __init__(
        self, stages: Sequence[Stage], device: torch.device | str | None, dtype: torch.dtype | None, keep_loaded: bool
    ) -> None:
        """As ``Cascade`` is made."""
        names = [stage.name for stage in stages]
        if not names or len(set(names)) != len(names):
            raise InputError(f"A cascade needs at least one stage, each name once; got {names}.")
        self.stages = tuple(stages)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or torch.float32
        self.keep_loaded = keep_loaded
        # Several threads may share a cascade, and streams be read by turns: one stage runs at a time, and weights are
        # let go of when nobody uses them any more. Copies (``sized``) share both.
        self._turn = threading.RLock()
        self._users: Counter[str] = Counter()

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def frame_size(self) -> int | None:
        """Side of the frames that the decoder makes, in pixels; None for a cascade without one."""
        decoder: Any = self.stage("decoder")
        return None if decoder is None else decoder.frame_size()

    def frame_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the frames that are made of pictures of ``height`` x ``width`` pixels, before they are
        enlarged: the pictures' shape at about the decoder's area; see :mod:`inflate.cascade.shapes`."""
        decoder: Any = self.stage("decoder")
        multiples = [stage.size_multiple() for stage in self.stages]
        known = [one for one in multiples if one is not None]
        multiple = math.lcm(*known) if len(known) == len(multiples) else None
        return fitting_size(height, width, None if decoder is None else decoder.usual_size(), multiple)

    def sized(self, height: int, width: int) -> Self:
        """The same cascade, of the same weights, whose decoder draws frames of a size that :meth:`frame_shape` says."""
        cascade, decoder = copy.copy(self), self.stage("decoder")
        stages = (stage.sized(height, width) if stage is decoder else stage for stage in self.stages)  # pyright: ignore[reportAttributeAccessIssue]
        cascade.stages = tuple(stages)
        return cascade

    def told_nothing(self) -> bool:
        """Whether its frames come from noise alone, so that it takes no prompt."""
        decoder: Any = self.stage("decoder")
        return decoder is not None and decoder.told_nothing

    def window_size(self) -> int | None:
        """Frames that the decoder sees at once; longer videos are cut into windows. None for a cascade without one."""
        decoder: Any = self.stage("decoder")
        return None if decoder is None else decoder.window_size()

    def interpolation(self, until: str | None = None) -> Any:
        """The stage that makes frames between or behind known ones.

        Raises:
            InputError: there is none, or ``until`` stops before it.
        """
        stage = self.stage("interpolation")
        if stage is None:
            names = ", ".join(stage.name for stage in self.stages)
            raise InputError(f"This cascade has no interpolation stage, which this needs; it has {names}.")
        if stage not in self.up_to(until):
            raise InputError(f"until={until!r} stops before interpolation, which makes the frames; name a later stage.")
        return stage

    def enlargers(self, until: str | None = None) -> tuple[Any, ...]:
        """The super-resolution stages up to and with ``until``; there may be none."""
        return tuple(stage for stage in self.up_to(until) if stage.enlarges)

    def upscalers(self, until: str | None = None) -> tuple[Any, ...]:
        """As :meth:`enlargers`, where there are to be some.

        Raises:
            InputError: there are none.
        """
        found = self.enlargers(until)
        if not found:
            raise InputError("This cascade has no super-resolution stage, so it cannot enlarge anything.")
        return found

    def up_to(self, until: str | None) -> tuple[Stage, ...]:
        """The stages up to and with ``until``; all for None."""
        names = [stage.name for stage in self.stages]
        if until is None:
            return self.stages
        if until not in names:
            raise InputError(f"until={until!r} is no stage here{nearest(until, names)}; it has {', '.join(names)}.")
        return self.stages[: names.index(until) + 1]

    def settings(
        self,
        num_inference_steps: int | Mapping[str, int] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        **guidance: Unpack[GuidanceChoice],
    ) -> dict[str, StageSettings]:
        """Each stage's sampling settings by its name: its defaults, changed by a number or by numbers by name.

        A number is for all stages, or for the decoder if it is one of ``GuidanceOptions``.

        Raises:
            InputError: a bad number, or a stage that there is not, or that knows no such option.
        """
        every = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        chosen = {what: self._by_stage(what, value) for what, value in every.items()}
        for what, value in guidance.items():
            alone = value if value is None or isinstance(value, Mapping) else {"decoder": value}
            chosen[what] = self._by_stage(what, alone)
        found = {}
        for stage in self.stages:
            changes = {what: values[stage.name] for what, values in chosen.items() if stage.name in values}
            found[stage.name] = replace(stage.defaults, **changes)
            odd = [what for what in guidance if getattr(found[stage.name], what) != getattr(_PLAIN, what)]
            if odd and not stage.guidance_options:
                raise InputError(f"The stage {stage.name!r} knows no {odd[0]}; give it to the decoder alone.")
        return found

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
            on_step = self.step_callback(todo, works, number, state, settings, callback_on_step_end)
            with self.running(stage):
                if stage.makes_frames:
                    # As `whole` does; here, so that a call fewer lies between the command and the image model.
                    made = []
                    for video in range(len(state.seeds)):
                        given = None if state.frames is None else [state.frames[video]]
                        chunks = stage.stream(state, video, given, settings[stage.name], on_step)
                        made.append(torch.cat(list(chunks), dim=1))
                    state = replace(stage.after(state), frames=torch.stack(made))
                else:
                    state = stage(state, settings[stage.name], on_step)
            tell_end(callback_on_stage_end, self, stage.name, state)
        return state

    def stream_through(
        self,
        todo: Sequence[Stage],
        works: Sequence[float],
        state: ChainState,
        settings: Mapping[str, StageSettings],
        callback: StepCallback | None = None,
        chunks: Iterable[Tensor] | None = None,
        first: int = 0,
    ) -> Iterator[Tensor]:
        """Run stages one after the other on one video, with a file of its frames, as 8-bit pixels, between two.

        Args:
            todo: the stages, in order.
            works: their sizes, in any unit, for progress.
            state: of the video, without ``frames``.
            settings: by stage name.
            callback: as a cascade's.
            chunks: frames (3, n, H, W) that there are; None where the decoder, one of ``todo``, makes them.
            first: number of the first stage to run, those before it having run.

        Yields:
            Chunks of the last stage's frames.

        Raises:
            InputError: a stage that makes no stream of frames comes behind one that does.
        """
        for number, stage in list(enumerate(todo))[first:]:
            on_step = self.step_callback(todo, works, number, state, settings, callback)
            if not stage.makes_frames:
                if chunks is not None:
                    raise InputError(f"The stage {stage.name!r} works on whole videos only; stop before it (until).")
                with self.running(stage):
                    state = stage(state, settings[stage.name], on_step)
                continue
            made = self.making(stage, stage.stream(state, 0, chunks, settings[stage.name], on_step))
            if number + 1 == len(todo):
                yield from made
                return
            file = FrameFile()
            file.write(made)
            chunks, state = file.read(), stage.after(state)
        yield from chunks or ()

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

    def making(self, stage: Stage, made: Iterator[Tensor]) -> Iterator[Tensor]:
        """What a stage makes chunk by chunk, its weights being held until the end; no other stage runs meanwhile.

        Others may run between two chunks, so that a stream that nobody reads on with stops nobody.
        """
        with self.loaded(stage), closing(made):  # pyright: ignore[reportArgumentType] # streams are generators
            while True:
                with self._turn, torch.no_grad():
                    chunk = next(made, None)
                if chunk is None:
                    return
                yield chunk

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
