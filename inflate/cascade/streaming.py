"""Super-resolution of videos of any length in constant memory: stage after stage, with a file of frames between."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inflate.cancelling import CancelledError
from inflate.cascade.output import Progress, StepCallback
from inflate.cascade.runner import Runner
from inflate.data.spool import FrameSpool
from inflate.stages import StageSettings
from inflate.video import from_uint8, to_uint8

_ROUNDING = 1e-6  # of a frame, where parts of it add up to all


class FrameFile:
    """Frames on disk, written once and read in order; neither holds more than a chunk in memory."""

    def __init__(self) -> None:
        self._frames = FrameSpool()

    def write(self, chunks: Iterable[Tensor]) -> int:
        """Write chunks (3, n, H, W) in [-1, 1] as 8-bit pixels; returns the number of frames."""
        for chunk in chunks:
            self._frames.add(to_uint8(chunk[None])[0])
        return len(self._frames)

    def read(self, first: int = 0) -> Iterator[Tensor]:
        """Chunks (3, n, H, W) from frame ``first`` on, float32 in [-1, 1]."""
        for chunk in self._frames.chunks(first):
            yield from_uint8(chunk[None])[0]


def upscale_chunks(
    cascade: Runner,
    stages: Sequence[Any],
    chunks: Iterable[Tensor],
    seed: int,
    settings: Mapping[str, StageSettings],
    num_frames: int | None,
    callback: StepCallback | None,
    works: Sequence[float] = (),
    fps: float | None = None,
) -> Iterator[Tensor]:
    """Run the chunks of one video through stages that stream, one stage in memory at a time.

    Args:
        cascade: whose device and memory rules hold.
        stages: stages with ``stream``, in order.
        chunks: (3, n, H, W) float32 in [-1, 1].
        seed: of the video.
        settings: by stage name.
        num_frames: frames in all, for progress; None if nobody knows.
        callback: as a cascade's; its step counts frames, and it gets no latents.
        works: how long each stage will take, in any unit; by default by number of steps and cost.
        fps: frames per second, which networks with a frame-rate embedding are told.

    Yields:
        Chunks of the last stage's frames.
    """
    works = works or [settings[stage.name].num_inference_steps * settings[stage.name].cost for stage in stages]
    for number, stage in enumerate(stages):
        on_frames = FrameCounter(cascade, stages, number, works, num_frames, callback)
        made = cascade.making(stage, stage.stream(chunks, seed, settings[stage.name], on_frames, fps))
        if number + 1 == len(stages):
            yield from made
        else:
            file = FrameFile()
            file.write(made)
            chunks = file.read()


class FrameCounter:
    """Turns "so many more frames are done" into a cascade's callback; ``works`` are the stages' sizes, in any unit."""

    def __init__(
        self,
        cascade: Runner,
        stages: Sequence[Any],
        number: int,
        works: Sequence[float],
        num_frames: int | None,
        callback: StepCallback | None,
    ) -> None:
        self.cascade, self.callback, self.num_frames = cascade, callback, num_frames
        self.name, self.number, self.num_stages, self.done = stages[number].name, number, len(stages), 0.0
        self.before, self.own, self.total = sum(works[:number]), works[number], sum(works)

    def __call__(self, frames: float) -> None:
        """So many frames more are done; a part of one counts too."""
        self.done += frames
        if self.callback is None:
            return
        count = max(self.num_frames or 0, math.ceil(self.done - _ROUNDING))
        share = min(1.0, self.done / count) if self.num_frames else 0.0
        fraction = (self.before + self.own * share) / self.total
        step = max(0, math.ceil(self.done - _ROUNDING) - 1)
        progress = Progress(self.name, self.number, self.num_stages, 0, 1, step, count, fraction)
        answer = self.callback(self.cascade, step, torch.zeros(()), {"progress": progress})
        if answer is False:
            raise CancelledError(f"cancelled in {self.name} after {self.done:.0f} frames")
