"""More frames for videos that do not fit into memory: between those of a file, or behind them.

Frames are read once, brought to the model's size while they are, and lie in a temporary file from then on. What is made
is that of ``Cascade.interpolate_video`` and ``Cascade.extend``, but for the noise of frames behind the video's, and for
8-bit pixels between stages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor

from inflate.cascade.applications import SamplingOptions
from inflate.cascade.frame_file import FrameFile
from inflate.cascade.inputs import Timing, draw_seeds
from inflate.cascade.long import MAX_STREAMED_FRAMES, FrameStream
from inflate.stages import ChainState

if TYPE_CHECKING:
    from inflate.cascade.chain import Cascade
    from inflate.data.decode import VideoFacts
    from inflate.video import Video


@dataclass(frozen=True)
class KnownVideo:
    """A video that is read once: ``chunks`` of uint8 frames (n, H, W, 3), how many frames in all, and their rate."""

    chunks: Iterable[np.ndarray]
    num_frames: int
    fps: float


def interpolate_stream(
    cascade: "Cascade", video: KnownVideo, frame_skip: int = 5, **options: Unpack[SamplingOptions]
) -> FrameStream:
    """Raise a video's frame rate as ``Cascade.interpolate_video`` does, in memory that does not grow with its length.

    Raises:
        InputError: bad numbers, or this cascade has no frame interpolation.
    """
    timing = checked_timing(video, frame_skip)
    count = (video.num_frames - 1) * frame_skip + 1
    return FrameStream(_Known(cascade, video, timing, options).between(), count, video.fps * frame_skip)


def extend_stream(
    cascade: "Cascade", video: KnownVideo, num_frames: int = 8, **options: Unpack[SamplingOptions]
) -> FrameStream:
    """Go on where a video ends, as ``Cascade.extend`` does; new frames, which lie in memory, are told its last ones.

    Raises:
        InputError: bad numbers, or this cascade has no frame interpolation.
    """
    timing = checked_timing(video, new=num_frames)
    return FrameStream(_Known(cascade, video, timing, options).behind(), video.num_frames + num_frames, video.fps)


def checked_timing(video: "KnownVideo | Video | VideoFacts", frame_skip: int = 1, new: int | None = None) -> Timing:
    """The timing of the known frames, or of ``new`` ones behind them; raises ``InputError`` for bad numbers."""
    if new is None:
        return Timing(video.num_frames, video.fps, frame_skip, MAX_STREAMED_FRAMES)
    Timing(video.num_frames + new, video.fps, 1, MAX_STREAMED_FRAMES)
    return Timing(new, video.fps, 1)


class _Known:
    """One such job; nothing is read before the first frame is asked for."""

    def __init__(self, cascade: "Cascade", video: KnownVideo, timing: Timing, options: SamplingOptions) -> None:
        stage = cascade.interpolation(options.get("until"))
        self.cascade, self.video, self.timing, self.stage = cascade, video, timing, stage
        self.settings = cascade.chosen_settings(options)
        self.callback = options.get("callback_on_step_end")
        self.seeds = draw_seeds(options.get("generator"), 1)
        self.larger = cascade.enlargers(options.get("until"))

    def between(self) -> Iterator[Tensor]:
        """Chunks (3, n, H, W) of all frames, where ``timing`` is the known ones'."""
        raised = self.timing.frame_skip > 1
        todo = [self.stage, *self.larger] if raised else self.larger
        file, state = self._read(raised)
        works = self._works(todo, state)
        yield from self.cascade.stream_through(todo, works, state, self.settings, self.callback, file.read())

    def behind(self) -> Iterator[Tensor]:
        """Chunks (3, n, H, W) of all frames, where ``timing`` is the new ones'."""
        file, state = self._read(True)
        told = min(state.num_frames, self.stage.window_size() - 1)
        known = torch.cat(list(file.read(state.num_frames - told)), dim=1)[None]
        blank = known.new_zeros(1, 3, self.timing.num_frames, *known.shape[-2:])
        mask = torch.arange(told + self.timing.num_frames) < told
        last = replace(state, frames=torch.cat([known, blank], 2), known_frames=mask)
        state = replace(state, num_frames=state.num_frames + self.timing.num_frames, passed=(self.stage.name,))
        works = [*self._works([self.stage], last), *self._works(self.larger, state)]
        todo = [self.stage, *self.larger]
        on_step = self.cascade.step_callback(todo, works, 0, last, self.settings, self.callback)
        with self.cascade.running(self.stage):
            made = self.stage(last, self.settings[self.stage.name], on_step).frames
        chunks = self._after(file, made[0, :, told:])
        yield from self.cascade.stream_through(todo, works, state, self.settings, self.callback, chunks, first=1)

    def _read(self, embedded: bool) -> tuple[FrameFile, ChainState]:
        """The frames in a file, and a state that knows their number, and their embedding if they are ``embedded``."""
        file = FrameFile()
        count = file.write(self.cascade.fitted(self.video.chunks))
        embeds = self.cascade.embed_chunks(file.read()) if embedded else None
        timing = self.timing
        return file, ChainState((), self.seeds, count, timing.fps, image_embeds=embeds, frame_skip=timing.frame_skip)

    def _works(self, stages: Iterable[Any], state: ChainState) -> list[float]:
        return [stage.work(state, self.settings[stage.name]) for stage in stages]

    @staticmethod
    def _after(file: FrameFile, made: Tensor) -> Iterator[Tensor]:
        yield from file.read()
        yield from made.split(1, dim=1)
