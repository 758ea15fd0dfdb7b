"""More frames and more pixels from the decoder alone, which was trained for neither: reconstruction guidance.

The frames of a video are the known ones of a faster one (VDM, arXiv:2204.03458, eq. 7), or what a larger one should
look like when shrunk (eq. 8). Windows share frames, which the later one is told as known.

What comes out is as good as the decoder's prior for this very video. That of ``bundled:emoji`` is not good enough: on a
test clip it ended below a blend of frames and below bicubic, which the stages made for these tasks beat (README).
"""

from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch.nn import functional

from inflate.cascade.applications import SamplingOptions
from inflate.cascade.inputs import video_frames
from inflate.cascade.output import CascadeOutput
from inflate.cascade.reconstruction import Completing
from inflate.errors import InputError
from inflate.video import Video, fold_frames, unfold_frames


def raise_frame_rate(
    cascade: Any,
    video: Video,
    frame_skip: int,
    weight: float,
    save_memory: bool = False,
    prompt: str = "",
    guide: str = "errors",
    **options: Unpack[SamplingOptions],
) -> CascadeOutput:
    """``frame_skip`` times as many frames a second: ``(F - 1) * frame_skip + 1`` frames, the known ones as they were.

    Args:
        cascade: as for :func:`~inflate.cascade.reconstruction.extend_video`, of whose arguments these are.
        video: at least two frames; they are brought to a size that the decoder can do (``Cascade.frame_shape``).
        frame_skip: 2 or more, and fewer than the frames that the decoder sees at once.
        weight: ``w_r``.
        save_memory: gradient checkpointing of the decoder's network.
        prompt: what the video shows, for decoders that read it.
        guide: the form of guidance between frames.
        options: as there.

    Raises:
        InputError: bad numbers, a frame rate the decoder does not know, or no decoder that can.
    """
    if frame_skip < 2 or video.num_frames < 2:
        raise InputError(
            f"Frames between the known ones need two of these and frame_skip of 2 or more; got {video.num_frames} and "
            f"{frame_skip}."
        )
    size, total = cascade.frame_shape(video.height, video.width), (video.num_frames - 1) * frame_skip + 1
    known = video_frames(video, size)
    frames = known.repeat_interleave(frame_skip, dim=2)[:, :, :total]
    have = torch.arange(total) % frame_skip == 0
    with Completing(cascade.sized(*size), video.fps * frame_skip, weight, save_memory, prompt, options, guide) as work:
        gaps = (work.window - 1) // frame_skip
        if not gaps:
            raise InputError(
                f"frame_skip is {frame_skip}, and the model sees {work.window} frames at once; use at most "
                f"{work.window - 1}."
            )
        # Windows begin and end with a frame that is given.
        parts = list(_windows(total, gaps * frame_skip + 1, (gaps - gaps // 2) * frame_skip))
        work.windows = len(parts)
        for part in parts:
            frames[:, :, part] = work.complete(frames[:, :, part], have[part])
            have[part] = True
    return work.output(frames)


def enlarge_video(
    cascade: Any,
    video: Video,
    weight: float,
    save_memory: bool = False,
    prompt: str = "",
    **options: Unpack[SamplingOptions],
) -> CascadeOutput:
    """A video of about the decoder's own size, which should be ``video`` when shrunk; arguments as above.

    Of ``video`` the centre is taken that has the shape of what the decoder can do (``Cascade.frame_shape``).

    Raises:
        InputError: the video is as large as what the decoder makes, or larger; or as above.
    """
    height, width = cascade.frame_shape(video.height, video.width)
    if video.height >= height or video.width >= width:
        raise InputError(
            f"The video has {video.width} x {video.height} pixels and the decoder makes {width} x {height}; this "
            "enlarges smaller videos only."
        )
    box = min(video.height, round(video.width * height / width)), min(video.width, round(video.height * width / height))
    low = video_frames(video, box)
    large = functional.interpolate(fold_frames(low), (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
    frames, have = unfold_frames(large, video.num_frames), torch.zeros(video.num_frames, dtype=torch.bool)
    with Completing(cascade.sized(height, width), video.fps, weight, save_memory, prompt, options) as work:
        parts = list(_windows(video.num_frames, work.window, work.window - work.window // 2))
        work.windows = len(parts)
        for part in parts:
            frames[:, :, part] = work.complete(frames[:, :, part], have[part], low[:, :, part])
            have[part] = True
    return work.output(frames)


def _windows(total: int, size: int, stride: int) -> Iterator[slice]:
    """Windows of ``size`` that cover ``total`` frames, ``stride`` apart; the last one ends with the last frame."""
    start = 0
    while start + size < total:
        yield slice(start, start + size)
        start += stride
    yield slice(max(0, total - size), total)
