"""Videos longer than a network's own: at every evaluation overlapping windows go through it, one at a time.

What the windows predict for a frame is averaged, weights falling to both ends of a window (MultiDiffusion,
arXiv:2302.08113, eq. 5, along time), so that the sampler sees one prediction for one long video. Windows lie elsewhere
at each evaluation, and no frame is at a window's end throughout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.diffusion.windows import check_window, count_windows, shift_of, window_shares, window_starts
from inflate.errors import InputError
from inflate.inflater import InflatedModel

_PICTURES_AT_ONCE = 16  # of an image model, which sees each frame by itself

# (sample (B, c, n, h, w), timestep, place of the middle of its frames in the video) -> prediction (B, c', n, h, w)
PredictWindow = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class WindowConfig:
    """How a decoder makes videos longer than its network's own.

    ``overlap``: the share of a window that it has in common with the next one, 0 to below 1. ``moving``: whether
    windows lie elsewhere at each step. ``repeat_noise``: whether frames beyond the first window start from its frames'
    noise, shuffled (FreeNoise, arXiv:2310.15169), instead of noise of their own.
    """

    overlap: float = 0.5
    moving: bool = True
    repeat_noise: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be a share of a window from 0 to below 1, got {self.overlap}.")


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` frames that share ``overlap``.

    ``anchored``: every window has the video's first frame in place of its own first one, for networks whose spatial
    attention looks at the first frame; it needs an overlap.
    """

    size: int
    overlap: int
    moving: bool = True
    anchored: bool = False

    def __post_init__(self) -> None:
        check_window(self.size, self.overlap)
        assert self.overlap or not self.anchored, "the frame that gives way to the anchor is another window's too"

    @property
    def stride(self) -> int:
        """Frames from one window to the next."""
        return self.size - self.overlap

    def frames_seen(self, num_frames: int) -> int:
        """Frames that go through the network for one evaluation of a video."""
        return min(num_frames, self.size) * count_windows(num_frames, self.size, self.overlap)


def windows_of(model: Any, config: WindowConfig | None = None) -> Windows:
    """The windows for a network: its own number of frames, or single frames in small batches for an image model."""
    config = config or WindowConfig()
    if not isinstance(model, InflatedModel):
        return Windows(_PICTURES_AT_ONCE, 0, moving=False)
    size = model.num_frames
    anchored = size > 1 and model.scheme.frames_seen.startswith("first")
    overlap = min(max(int(size * config.overlap), int(anchored)), size - 1)
    return Windows(size, overlap, config.moving and overlap > 0, anchored)


class WindowedPrediction:
    """A network's prediction for videos of any length, from windows of at most ``windows.size`` frames.

    Called with (sample (B, c, F, h, w), timestep), as ``denoise`` does. A video that fits into one window goes through
    as it is. Make a new one for each video: it counts its calls, by which windows move.
    """

    def __init__(self, predict: PredictWindow, windows: Windows) -> None:
        self.predict, self.windows, self.calls = predict, windows, 0

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The prediction for all frames, (B, c', F, h, w)."""
        windows, count = self.windows, sample.shape[2]
        if count <= windows.size:
            return self.predict(sample, timestep, (count - 1) / 2)
        shift = shift_of(self.calls, windows.stride) if windows.moving else 0
        self.calls += 1
        starts = window_starts(count, windows.size, windows.overlap, shift)
        shares = window_shares(count, windows.size, windows.overlap, starts, windows.anchored)
        mean: Tensor | None = None
        for start, share in zip(starts, shares, strict=True):
            frames = list(range(start, start + windows.size))
            told = [0, *frames[1:]] if windows.anchored else frames
            made = self.predict(sample[:, :, told], timestep, start + (windows.size - 1) / 2)
            if mean is None:
                mean = made.new_zeros(*made.shape[:2], count, *made.shape[3:])
            weight = share.to(made)[:, None, None]
            mean[:, :, frames] = torch.lerp(mean[:, :, frames], made, weight)
        assert mean is not None, "there is a window"
        return mean
