"""Which frames of which clip at which frame rate: a function of (seed, step, index), so training can resume exactly."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inflate.errors import InputError

if TYPE_CHECKING:
    from inflate.data.frames import FrameCache

FPS_RANGE = (1.0, 30.0)

# Two clocks that agree to a microsecond show the same frame.
_SAME_TIME_SECONDS = 1e-6


def sample_clip_indices(
    timestamps: np.ndarray, duration: float, fps: float, num_frames: int, start: float = 0.0, loop: bool = False
) -> np.ndarray:
    """Indices (num_frames,) int64 of the frames a player shows at the times ``start + i / fps``.

    ``timestamps`` (F,) are the seconds at which each frame appears, rising from 0; frame ``i`` is shown until the time
    of the next, the last until ``duration``. With ``loop`` time runs on from ``duration`` to 0; without it the last
    frame is held. Raises ``InputError`` for a frame rate or a count that is not positive, or no frames.
    """
    timestamps = np.asarray(timestamps, dtype=np.float64)
    if timestamps.size == 0:
        raise InputError("cannot sample from a clip without frames; leave it out of the data")
    if not fps > 0 or num_frames < 1:
        raise InputError(f"got fps={fps} and num_frames={num_frames}; both must be positive")
    times = start + np.arange(num_frames) / fps + _SAME_TIME_SECONDS
    if loop and duration > 0:
        times = np.mod(times, duration)
    shown = np.searchsorted(timestamps, times, side="right") - 1
    return np.clip(shown, 0, timestamps.size - 1).astype(np.int64)


def fps_curriculum(progress: float, rng: np.random.Generator) -> float:
    """Draw a frame rate in [1, 30] frames/s: high rates (little motion) first, low rates last.

    Make-A-Video section 3.4 moves from high to low fps "using a beta function" without its constants; ours are
    fps = 1 + 29 Beta(a, b) with (a, b) linear in ``progress`` in [0, 1] from (4, 1) (mean 24.2) through (1, 1)
    (mean 15.5) to (1, 4) (mean 6.8).
    """
    if not 0.0 <= progress <= 1.0:
        raise InputError(f"progress is {progress}; the frame-rate curriculum is defined from 0 (start) to 1 (end)")
    a = max(1.0, 4.0 - 6.0 * progress)
    b = max(1.0, 6.0 * progress - 2.0)
    low, high = FPS_RANGE
    return float(low + (high - low) * rng.beta(a, b))


@dataclass(frozen=True)
class ClipDraw:
    """One drawn clip: ``clip`` numbers an entry of the cache, ``frame_indices`` (F,) rows of its frame array."""

    clip: int
    name: str
    fps: float
    start: float
    frame_indices: np.ndarray


@dataclass(frozen=True)
class ClipBatch:
    """Drawn clips: ``frames`` uint8 (B, F, H, W, 3), ``fps`` float32 (B,), and the draws themselves."""

    frames: np.ndarray
    fps: np.ndarray
    draws: tuple[ClipDraw, ...]


class ClipSampler:
    """Draws training clips; ``sample(step, index)`` depends on the seed and its two arguments only, never on the past.

    Clips come from entries of ``frame_cache`` of ``kind`` "clip" in ``split``. The frame rate follows
    ``fps_curriculum`` at ``step / total_steps``, or is ``fps`` if one is given. A looping clip may start anywhere and
    wraps. One that does not loop starts where all frames fit; if none do, its frame rate is raised until they do (at
    most to 30 frames/s, after which the last frame is held), and the draw says the rate used.
    """

    def __init__(
        self,
        frame_cache: "FrameCache",
        num_frames: int,
        total_steps: int = 1,
        seed: int = 0,
        fps: float | None = None,
        split: str | None = "train",
    ) -> None:
        self.cache, self.num_frames = frame_cache, num_frames
        self.total_steps, self.seed, self.fps = total_steps, seed, fps
        self.clips = frame_cache.select(kind="clip", split=split)
        if num_frames < 1 or total_steps < 1:
            raise InputError(f"got num_frames={num_frames} and total_steps={total_steps}; both must be at least 1")
        if fps is not None and not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
            raise InputError(f"fps is {fps}; frame rates for training go from 1 to 30")
        if not self.clips:
            where = f" in the {split} split" if split else ""
            raise InputError(f"{frame_cache.source} has no clips of two or more frames{where}; add videos to train on")

    def sample(self, step: int, index: int) -> ClipDraw:
        """The clip number ``index`` of the batch at ``step`` (both count from 0)."""
        rng = np.random.default_rng([self.seed, step, index])
        clip = self.clips[int(rng.integers(len(self.clips)))]
        entry = self.cache.entries[clip]
        drawn = fps_curriculum(min(1.0, step / self.total_steps), rng)
        fps, position = self.fps or drawn, rng.random()
        if entry.loop:
            start = position * entry.duration
        else:
            if (self.num_frames - 1) / fps > entry.duration > 0:
                fps = min(FPS_RANGE[1], (self.num_frames - 1) / entry.duration)
            start = position * max(0.0, entry.duration - (self.num_frames - 1) / fps)
        local = sample_clip_indices(entry.timestamps, entry.duration, fps, self.num_frames, start, entry.loop)
        return ClipDraw(clip, entry.name, float(fps), float(start), entry.start + local)

    def batch(self, step: int, batch_size: int, offset: int = 0) -> ClipBatch:
        """The clips ``offset`` to ``offset + batch_size`` of ``step``; ``offset`` lets many processes share a step."""
        draws = tuple(self.sample(step, offset + i) for i in range(batch_size))
        frames = np.stack([self.cache.frames[draw.frame_indices] for draw in draws])
        return ClipBatch(frames, np.asarray([draw.fps for draw in draws], dtype=np.float32), draws)
