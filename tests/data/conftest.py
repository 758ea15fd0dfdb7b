"""Small videos with known frames and times, made anew for each test."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

WriteWebp = Callable[..., Path]
WriteMp4 = Callable[..., Path]


@pytest.fixture
def write_webp() -> WriteWebp:
    """``write_webp(path, levels, durations_ms, loop=0)``: one flat grey frame for each level, stored without loss."""

    def write(path: Path, levels: Sequence[int], durations_ms: Sequence[int], loop: int = 0, size: int = 32) -> Path:
        pictures = [Image.new("RGB", (size, size), (level, level, level)) for level in levels]
        durations = list(durations_ms)
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=loop, lossless=True)
        return path

    return write


@pytest.fixture
def write_mp4() -> WriteMp4:
    """``write_mp4(path, levels, starts_ms, size=(64, 64))``: flat grey frames shown from these times on."""

    def write(path: Path, levels: Sequence[int], starts_ms: Sequence[int], size: tuple[int, int] = (64, 64)) -> Path:
        width, height = size
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "1"}
            stream.codec_context.time_base = Fraction(1, 1000)
            for level, start in zip(levels, starts_ms, strict=True):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = start, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write
