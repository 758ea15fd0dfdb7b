"""Small videos whose frames are known by their grey level, made anew for each test."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

Paint = Callable[[int], np.ndarray]
WriteClip = Callable[..., Path]
WHITE = 235


def grey(level: float, width: int = 64, height: int = 64) -> np.ndarray:
    """A flat picture, uint8 (H, W, 3)."""
    return np.full((height, width, 3), round(level), np.uint8)


def bar(number: int, width: int = 64, height: int = 64, base: int = 90) -> np.ndarray:
    """A bright bar that moves three pixels a frame on a plain ground."""
    picture = grey(base, width, height)
    left = 3 * number % (width - 8)
    picture[:, left : left + 8] = WHITE
    return picture


@pytest.fixture
def write_clip() -> WriteClip:
    """``write_clip(path, paint, count, rate)``: frame ``i`` is ``paint(i)``, shown at ``i / rate`` or ``starts_ms[i]``.

    ``codec`` and codec ``options`` as PyAV takes them; ``aspect`` the width of a pixel over its height.
    """

    def write(
        path: Path,
        paint: Paint = bar,
        count: int = 48,
        rate: int = 24,
        starts_ms: Sequence[int] | None = None,
        codec: str = "libx264",
        aspect: Fraction | None = None,
        **options: str,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = paint(0).shape[:2]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            settings: dict[str, object] = dict(options)
            stream.options = {"crf": "4", "threads": "1", **settings} if codec == "libx264" else settings
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            base = Fraction(1, 1000) if starts_ms is not None else Fraction(1, rate)
            stream.codec_context.time_base = base
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(number)), format="rgb24")
                frame.pts = starts_ms[number] if starts_ms is not None else number
                frame.time_base = base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write
