"""The whole chain for videos of any length in constant memory: stage after stage, with a file of frames between."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from inflate.cascade.output import StepCallback
from inflate.cascade.runner import Runner
from inflate.cascade.streaming import FrameCounter, FrameFile
from inflate.errors import InputError
from inflate.stages import ChainState, Stage, StageSettings

MAX_STREAMED_FRAMES = 100_000  # of the decoder, whose latents lie in memory


@dataclass(frozen=True)
class FrameStream:
    """A video that is made while it is read.

    ``chunks``: (3, n, H, W) float32 in [-1, 1], in order, once. ``num_frames``: how many there will be in all. ``fps``:
    at which they are to be shown.
    """

    chunks: Iterator[Tensor]
    num_frames: int
    fps: float


def stream_video(
    cascade: Runner,
    state: ChainState,
    settings: Mapping[str, StageSettings],
    callback: StepCallback | None,
    until: str | None,
) -> FrameStream:
    """Run the chain for a state's one video, a chunk of frames at a time.

    Raises:
        InputError: several videos, or stages that make no frames or cannot work by chunks.
    """
    if len(state.seeds) != 1:
        raise InputError(f"One video is streamed at a time, not {len(state.seeds)}; give one prompt.")
    todo = [stage for stage in cascade.up_to(until) if not stage.done(state)]
    names = [stage.name for stage in todo]
    if "decoder" not in names:
        raise InputError(f"A stream needs the decoder, which makes frames; these stages are to run: {names}.")
    raised = state.frame_skip if "interpolation" in names else 1
    count = (state.num_frames - 1) * raised + 1
    works = [stage.work(state, settings[stage.name]) for stage in todo]
    chunks = stream_stages(cascade, todo, works, state, settings, callback)
    return FrameStream(chunks, count, state.fps * raised)


def stream_stages(
    cascade: Runner,
    todo: Sequence[Stage],
    works: Sequence[float],
    state: ChainState,
    settings: Mapping[str, StageSettings],
    callback: StepCallback | None,
    chunks: Iterator[Tensor] | None = None,
    first: int = 0,
) -> Iterator[Tensor]:
    """Run stages one after the other on one video, with a file of its frames between two.

    Args:
        cascade: whose device and memory rules hold.
        todo: the stages, in order.
        works: their sizes, in any unit, for progress.
        state: of the video, without ``frames``; ``num_frames`` are those that the first streamed stage starts from.
        settings: by stage name.
        callback: as a cascade's.
        chunks: frames (3, n, H, W) that there are; None where the decoder, one of ``todo``, makes them.
        first: number of the first stage to run, those before it having run.

    Yields:
        Chunks of the last stage's frames.
    """
    count = state.num_frames
    for number, stage in list(enumerate(todo))[first:]:
        on_step = cascade.step_callback(todo, works, number, state, settings, callback)
        if chunks is None and stage.name != "decoder":
            with cascade.running(stage):
                state = stage(state, settings[stage.name], on_step)
            continue
        if stage.name == "interpolation":
            count = (count - 1) * state.frame_skip + 1
        on_frames = FrameCounter(cascade, todo, number, works, count, callback)
        made = cascade.making(stage, _made(stage, state, chunks, settings[stage.name], on_step, on_frames))
        if number + 1 == len(todo):
            yield from made
            return
        file = FrameFile()
        file.write(made)
        chunks = file.read()
        state = replace(state, fps=state.fps * (state.frame_skip if stage.name == "interpolation" else 1))
    yield from chunks or ()


def _made(
    stage: Any,
    state: ChainState,
    chunks: Iterator[Tensor] | None,
    settings: StageSettings,
    on_step: Any,
    on_frames: FrameCounter,
) -> Generator[Tensor]:
    """What one stage makes, once its weights are there."""
    if chunks is None:
        yield from stage.draw_chunks(state, settings, on_step)
    elif hasattr(stage, "interpolate_chunks"):
        yield from stage.interpolate_chunks(chunks, state, settings, on_frames)
    elif hasattr(stage, "stream"):
        yield from stage.stream(chunks, state.seeds[0], settings, on_frames, state.fps)
    else:
        raise InputError(f"The stage {stage.name!r} works on whole videos only; stop before it (until).")
