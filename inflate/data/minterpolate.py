"""FFmpeg's motion-compensated interpolation, the filter ``minterpolate``, as a reference to measure against."""

from fractions import Fraction
from typing import Any

import numpy as np

from inflate.errors import InputError

_PADDING = 3  # frames repeated at both ends: the filter looks two ahead, and drops what it cannot look past


def minterpolate(frames: np.ndarray, skip: int) -> np.ndarray:
    """Raise the frame rate ``skip`` times with the filter's motion compensation, scene detection off.

    Args:
        frames: uint8 (F, H, W, 3); the filter needs sides of 16 pixels or more.
        skip: how many times.

    Returns:
        uint8 ((F - 1) skip + 1, H, W, 3); the given frames as they were, at every ``skip``-th place.

    Raises:
        InputError: another kind of array, or this build of FFmpeg cannot do it.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise InputError(f"minterpolate takes uint8 frames (F, H, W, 3), got {frames.dtype} of shape {frames.shape}")
    if skip < 1:
        raise InputError(f"the frame skip must be 1 or more, got {skip}")
    result = np.repeat(frames, skip, axis=0)[: (len(frames) - 1) * skip + 1]
    if skip == 1 or len(frames) == 1:
        return result
    padded = np.concatenate([frames[:1]] * _PADDING + [frames] + [frames[-1:]] * _PADDING)
    found = 0
    for place, picture in _filter(padded, skip):
        index = place - _PADDING * skip
        if 0 <= index < len(result):
            found += 1
            if index % skip:
                result[index] = picture
    if found < len(result):
        raise InputError(f"FFmpeg's minterpolate gave {found} of {len(result)} frames; use another build of PyAV")
    return result


def _filter(frames: np.ndarray, skip: int) -> list[tuple[int, np.ndarray]]:
    """Output frames with their numbers, counted from the first input frame."""
    import av
    import av.filter
    from av.error import BlockingIOError, EOFError, FFmpegError

    height, width = frames.shape[1:3]
    made: list[tuple[int, np.ndarray]] = []
    try:
        graph = av.filter.Graph()
        rgb = av.VideoFormat("rgb24", width, height)
        source = graph.add_buffer(width=width, height=height, format=rgb, time_base=Fraction(1, 1))
        # Full-range 4:4:4 loses least of the colours; the filter knows no RGB.
        nodes = [
            source,
            graph.add("format", "yuvj444p"),
            graph.add("minterpolate", f"fps={skip}:mi_mode=mci:scd=none"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes)
        graph.configure()
        for number, pixels in [*enumerate(frames), (len(frames), None)]:
            frame = None
            if pixels is not None:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 1)
            graph.push(frame)
            while True:
                try:
                    got = graph.pull()
                except (BlockingIOError, EOFError):
                    break
                # PyAV's stubs allow for audio and for frames without a time; a video filter gives neither.
                pulled: Any = got
                made.append((round(pulled.pts * float(pulled.time_base) * skip), pulled.to_ndarray(format="rgb24")))
    except (FFmpegError, ValueError) as error:
        raise InputError(f"FFmpeg's minterpolate cannot run here ({error}); use another build of PyAV") from error
    return made
