"""The whole chain for videos of any length in constant memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from inflate.cascade.output import StepCallback
from inflate.cascade.runner import Runner
from inflate.errors import InputError
from inflate.stages import ChainState, StageSettings

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
    chunks = cascade.stream_through(todo, works, state, settings, callback)
    return FrameStream(chunks, count, state.fps * raised)
