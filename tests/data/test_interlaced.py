"""Interlaced video is read without its combs, as many frames at the same times; progressive video as it is."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph

from inflate.data import decode_video, frame_times, iterate_frames
from inflate.data.reading.decoding import decoded
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import shown_frames

COUNT, RATE, WIDTH, HEIGHT = 24, 25, 128, 96
_INTERLACED = (1 << 18) | (1 << 29)  # flags +ildct+ilme
CODECS: list[tuple[str, str, str, dict[str, str]]] = [
    ("libx264", ".mp4", "yuv420p", {"crf": "4", "bf": "2", "g": "6"}),
    ("libx264", ".ts", "yuv420p", {"crf": "4", "bf": "2", "g": "6"}),
    ("mpeg2video", ".mpg", "yuv420p", {"qmin": "1", "qmax": "2", "g": "6"}),
    ("prores_ks", ".mov", "yuv422p10le", {}),
]


def marked(frame: Any, mode: str) -> Any:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", f"mode={mode}"), graph.add("buffersink")).configure()
    graph.push(frame)
    made = graph.vpull()
    made.pts, made.time_base = frame.pts, frame.time_base
    return made


def moving(number: int, fields: bool) -> np.ndarray:
    """A bar that moves by 4 pixels a frame; half of that from the lines of a frame to those of the other field."""
    picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    for field in (0, 1):
        left = 4 * number + (2 * field if fields else 0)
        picture[field::2, left : left + 16] = 220
    return picture


def write(path: Path, codec: str, form: str, options: dict[str, str], mode: str = "tff") -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, form
        stream.options = {"threads": "1"} | options
        if mode != "prog":
            stream.codec_context.flags |= _INTERLACED
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(moving(number, mode != "prog")).reformat(format=form)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(marked(frame, mode)))
        container.mux(stream.encode())
    return path


def as_stored(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def combs(frames: np.ndarray) -> np.ndarray:
    """How far lines are from the mean of their neighbours, for each frame."""
    lines = frames.astype(float)
    return np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean((1, 2, 3))


@pytest.mark.parametrize("mode", ["tff", "bff"])
@pytest.mark.parametrize(("codec", "suffix", "form", "options"), CODECS, ids=[one[0] + one[1] for one in CODECS])
def test_combs_are_gone_and_nothing_else(
    tmp_path: Path, codec: str, suffix: str, form: str, options: dict[str, str], mode: str
) -> None:
    path = write(tmp_path / f"a{suffix}", codec, form, options, mode)
    stored = as_stored(path)
    raw = np.stack([frame.to_ndarray(format="rgb24") for frame in stored])
    assert len(raw) == COUNT and combs(raw).min() > 9
    video, chunks = decode_video(path), np.concatenate(list(iterate_frames(path, 7)))
    assert video.frames.shape == raw.shape and np.array_equal(video.frames, chunks)
    assert combs(video.frames).max() < 2
    assert video.timestamps == pytest.approx(np.arange(COUNT) / RATE, abs=2e-3)
    assert video.timestamps == pytest.approx(np.array([start for start, _ in frame_times(path).spans]), abs=1e-6)
    # The lines of the field that comes first are kept.
    kept = slice(0, None, 2) if mode == "tff" else slice(1, None, 2)
    assert np.abs(video.frames[:, kept].astype(int) - raw[:, kept]).mean() < 1.5


@pytest.mark.parametrize("start", [0.0, 0.2, 0.24, 0.5, 0.72, 0.95])
def test_a_frame_is_the_same_wherever_reading_begins(tmp_path: Path, start: float) -> None:
    codec, suffix, form, options = CODECS[0]
    path = write(tmp_path / f"a{suffix}", codec, form, options)
    footage = Footage("a", path, suffix)
    whole = {round(RATE * one.time): one.pixels() for one in shown_frames(footage)}
    origin = frame_times(path).origin
    parts = {round(RATE * one.time): one.pixels() for one in shown_frames(footage, start=start, origin=origin)}
    assert min(parts) <= RATE * start + 1e-6 and max(parts) == COUNT - 1
    assert all(np.array_equal(whole[number], pixels) for number, pixels in parts.items())


@pytest.mark.parametrize(("codec", "suffix", "form", "options"), CODECS, ids=[one[0] + one[1] for one in CODECS])
def test_progressive_video_stays_as_it_is(
    tmp_path: Path, codec: str, suffix: str, form: str, options: dict[str, str]
) -> None:
    path = write(tmp_path / f"a{suffix}", codec, form, options, "prog")
    raw = np.stack([frame.to_ndarray(format="rgb24") for frame in as_stored(path)])
    assert np.array_equal(decode_video(path).frames, raw)


class _Stream:
    """Frames as a container's stream hands them out."""

    codec_context = container = property(lambda self: self)
    name = "rawvideo"

    def __init__(self, frames: list[Any]) -> None:
        self.frames, self.metadata = frames, dict[str, str]()

    def decode(self, stream: Any) -> Iterator[Any]:
        assert stream is self
        return iter(self.frames)


def test_progressive_frames_between_interlaced_ones_stay_as_they_are() -> None:
    """And the others are the same wherever reading began, if their neighbours were read."""
    modes, frames = ["prog", "tff", "prog", "prog", "tff", "prog"], list[Any]()
    for number, mode in enumerate(modes):
        frame = av.VideoFrame.from_ndarray(moving(number, True)).reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        frames.append(marked(frame, mode))
    made = list(decoded(_Stream(frames), sought=True))
    assert [frame.pts for frame in made] == list(range(6))
    same = [np.array_equal(one.to_ndarray(), two.to_ndarray()) for one, two in zip(frames, made, strict=True)]
    assert same == [mode == "prog" for mode in modes]
    for start in range(1, 6):
        later = list(decoded(_Stream(frames[start:]), sought=True))
        known = made[start + (modes[start] == "tff") :]
        assert [frame.pts for frame in later] == [frame.pts for frame in known]
        assert all(np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(later, known, strict=True))


@pytest.mark.parametrize("form", ["yuv420p10le", "yuva444p10le", "uyvy422", "nv12", "gbrp", "gray"])
def test_colours_and_sizes_are_kept(form: str) -> None:
    """Also of layouts that the filter cannot do, and where a stream changes its size."""
    frames: list[Any] = []
    for number, width in enumerate([WIDTH, WIDTH, WIDTH // 2, WIDTH // 2]):
        picture = np.ascontiguousarray(moving(number, False)[:, :width])
        frame = av.VideoFrame.from_ndarray(picture).reformat(format=form)
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        frames.append(marked(frame, "tff"))
        frames[-1].color_trc, frames[-1].color_primaries, frames[-1].color_range = 18, 9, 2
        if form not in ("gbrp", "gray"):
            frames[-1].colorspace = 9
    made = list(decoded(_Stream(frames), sought=False))
    for before, after in zip(frames, made, strict=True):
        assert (after.width, after.pts, after.color_trc, after.color_primaries) == (before.width, before.pts, 18, 9)
        assert (after.colorspace, after.color_range) == (before.colorspace, 2)
        seen = [one.to_ndarray(format="rgb24").astype(int) for one in (before, after)]
        assert np.abs(seen[0] - seen[1]).mean() < 2
