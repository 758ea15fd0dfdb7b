"""A wish fulfilled: the model opened, uploads read, the chain run, files written; one job's work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inflate.cancelling import check_cancelled
from inflate.cascade import Cascade, CascadeOutput
from inflate.cascade.long import FrameStream
from inflate.data.animations import Frames
from inflate.data.spool import FrameSpool
from inflate.page.files import write_all, write_comparison, write_preview
from inflate.page.jobs import Job, Result
from inflate.page.wishes import Wish
from inflate.stages import ChainState
from inflate.video import to_uint8


def work_for(wish: Wish, cascade: Cascade, folder: Path) -> Callable[[Job], Result]:
    """What a job does for a wish; files go below ``folder``."""
    return lambda job: _Making(wish, cascade, folder, job).run()


class _Making:
    def __init__(self, wish: Wish, cascade: Cascade, folder: Path, job: Job) -> None:
        self.wish, self.cascade, self.folder, self.job = wish, cascade, folder, job
        self.low: np.ndarray | None = None  # frames before they were enlarged
        self.chain_share = 0.0

    def run(self) -> Result:
        """Make it."""
        wish, guidance = self.wish, _guidance(self.cascade, self.wish)
        request = wish.request
        if guidance:
            told = ",".join(f"{name}={scale:g}" for name, scale in guidance.items())
            request = replace(request, options=request.options | {"guidance_scale": told})
        self.job.tell("reading and loading", 0.0)
        options: dict[str, Any] = {
            "generator": torch.Generator().manual_seed(wish.settings.seed),
            "guidance_scale": guidance,
            "callback_on_step_end": self._step,
            "callback_on_stage_end": self._stage,
            "output_type": "pil",  # a quarter of the others' bytes
        }
        given, without = wish.read(), wish.left_out()
        if request.command == "upscale":
            self.low = given.frames
        frames, fps = _made(wish.make(self.cascade, given, options))
        self.job.tell_writing(0.0)
        written = write_all(frames, fps, request, self.folder, self.job.tell_writing)
        enlarged = self.low is not None and self.low.shape[1] < frames[0].shape[0]
        compared = write_comparison(self.low, frames, self.folder) if enlarged and self.low is not None else None
        check_cancelled()
        told = (len(frames), self.job.elapsed(), wish.settings.seed, without)
        return Result(wish.title, written, compared, *told)

    def _step(self, cascade: Cascade, step: int, timestep: Any, values: dict[str, Any]) -> None:
        self.chain_share = values["progress"].fraction
        self.job.on_step(cascade, step, timestep, values)

    def _stage(self, cascade: Cascade, name: str, state: ChainState) -> None:
        if state.frames is None:
            return
        frames = to_uint8(state.frames[:1])[0]
        if name in ("decoder", "interpolation"):
            self.low = frames
        if self.chain_share < 1:  # the last stage's frames are the video itself, which comes next
            self.job.preview = write_preview(frames, state.fps, self.folder)


def _made(out: CascadeOutput | FrameStream) -> tuple[Frames, float]:
    """Frames and their rate: a stream's in a file, others (F, H, W, 3) without the pictures that they come from."""
    if isinstance(out, FrameStream):
        return FrameSpool(to_uint8(chunk[None])[0] for chunk in out.chunks), out.fps
    assert isinstance(out.frames, list), "they were asked for"
    return np.stack([np.asarray(picture) for picture in out.frames[0]]), out.fps


def _guidance(cascade: Cascade, wish: Wish) -> dict[str, float]:
    """The page's guidance is the decoder's and the interpolation's; other stages keep their own."""
    if not wish.guided:
        return {}
    scale = wish.settings.guidance_scale
    return {stage.name: scale for stage in cascade.stages if stage.name in ("decoder", "interpolation")}
