"""Everything a chain makes, small: what a rebuilding of the code must leave as it is, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inflate.cascade import Cascade
from inflate.cascade.constrained import enlarge_video, raise_frame_rate
from inflate.cascade.reconstruction import extend_video, infill_video
from inflate.stages import Segment
from inflate.video import Video

FEW: dict[str, Any] = {"num_inference_steps": 2}


def _seeded() -> dict[str, Any]:
    return {**FEW, "generator": torch.Generator().manual_seed(7), "output_type": "pt"}


def _short_stream() -> dict[str, Any]:
    options = _seeded()
    del options["output_type"]
    return options


def _without(num_frames: int, *missing: int) -> Tensor:
    return torch.tensor([number not in missing for number in range(num_frames)])


def clip(num_frames: int, size: int = 64) -> Video:
    """A square that moves over a shaded ground."""
    ground = np.linspace(40, 220, size, dtype=np.uint8)[:, None, None]
    frames = np.broadcast_to(ground, (num_frames, size, size, 3)).copy()
    side = size // 4
    for number in range(num_frames):
        left = (2 * number) % (size - side)
        frames[number, side : 2 * side, left : left + side] = (250, 60, 30)
    return Video(frames, 8.0)


def _joined(stream: Any) -> Tensor:
    return torch.cat(list(stream.chunks), dim=1)


def _upscaled(cascade: Cascade) -> Tensor:
    video = clip(100, 16)
    read = (torch.from_numpy(frame).permute(2, 0, 1)[:, None] / 127.5 - 1 for frame in video.frames)
    return torch.cat(list(cascade.upscale_chunks(read, 100, 2, **FEW, generator=torch.Generator().manual_seed(7))), 1)


RESULTS: dict[str, Callable[[Cascade], Any]] = {
    "generate": lambda chain: chain("party popper", 8, frame_skip=2, **_seeded()).frames,
    "generate-40": lambda chain: _joined(
        chain.stream("party popper", 40, frame_skip=2, until="interpolation", **_short_stream())
    ),
    "generate-stream": lambda chain: _joined(chain.stream("party popper", 6, frame_skip=2, **_short_stream())),
    "prompt-travel": lambda chain: (
        chain(
            "party popper", 32, frame_skip=1, until="decoder", segments=(Segment(2.0, "red heart"),), **_seeded()
        ).frames
    ),
    "guidance": lambda chain: (
        chain(
            ["red heart", "moon"],
            4,
            frame_skip=1,
            guidance_scale=3.0,
            guidance_rescale=0.7,
            until="decoder",
            **_seeded(),
        ).frames
    ),
    "animate": lambda chain: chain.animate(clip(1).frames[0], 4, until="interpolation", **_seeded()).frames,
    "interpolate": lambda chain: (
        chain.interpolate(clip(1).frames[0], clip(20).frames[-1], 4, until="interpolation", **_seeded()).frames
    ),
    "interpolate-video": lambda chain: (
        chain.interpolate_video(clip(4), 3, until="super_resolution", **_seeded()).frames
    ),
    "raise-frame-rate": lambda chain: raise_frame_rate(chain, clip(4), 2, 1.0, **_seeded()).frames,
    "extend": lambda chain: chain.extend(clip(6), 3, until="interpolation", **_seeded()).frames,
    "extend-reconstruction": lambda chain: extend_video(chain, clip(6), 1.5, 1.0, **_seeded()).frames,
    "infill": lambda chain: infill_video(chain, clip(8), _without(8, 2, 3, 6), 1.0, **_seeded()).frames,
    "infill-gradient": lambda chain: (
        infill_video(chain, clip(4), _without(4, 2), 1.0, guide="gradient", **_seeded()).frames
    ),
    "vary": lambda chain: chain.vary(clip(4), 4, frame_skip=1, until="decoder", **_seeded()).frames,
    "upscale-16": lambda chain: chain.upscale(clip(16, 16), **_seeded()).frames,
    "upscale-100": _upscaled,
    "enlarge-reconstruction": lambda chain: enlarge_video(chain, clip(4, 32), 1.0, **_seeded()).frames,
}
"""By name, what a cascade of the bundled family makes of it, as a tensor."""
