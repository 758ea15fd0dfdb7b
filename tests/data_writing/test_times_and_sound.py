"""Uneven times and sound go along into what is written."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from inflate.data import Timeline, decode_video, frame_times
from inflate.data.sound import Sound
from inflate.data.writing import write_video
from tests.data_clips.conftest import write_clip  # noqa: F401  # a fixture
from tests.data_clips.test_clip_frames import ramp

STARTS = [0.0, 0.04, 0.08, 0.5, 1.5, 1.54, 1.58, 2.0]
FRAMES = np.stack([ramp(5 * number) for number in range(len(STARTS))])
SPANS = list(zip(STARTS, [*STARTS[1:], 2.2], strict=True))
WriteClip = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_frames_are_shown_at_their_times(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"out{suffix}", iter([FRAMES[:3], FRAMES[3:]]), 3.6, spans=SPANS)
    video, tick = decode_video(path), 0.01 if suffix == ".gif" else 0.002
    assert video.timestamps == pytest.approx(STARTS, abs=tick) and video.duration == pytest.approx(2.2, abs=0.05)
    assert [round((float(frame.mean()) - 20) / 20) for frame in video.frames] == list(range(8))
    times = frame_times(path)
    assert [start for start, _ in times.spans] == pytest.approx(STARTS, abs=tick) and not times.even()


def test_even_times_are_even(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    for suffix in (".mp4", ".mkv", ".avi"):
        times = frame_times(write_clip(tmp_path / f"a{suffix}", ramp, 30, bf="2"))
        assert times.even() and times.spans[-1][1] == pytest.approx(30 / 24, abs=1e-2)


def with_sound(path: Path, codec: str, seconds: float = 2.0) -> Path:
    """A clip of 24 frames a second with a tone that is silent for its second half."""
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("libx264", rate=24)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        tones: Any = container.add_stream(codec, rate=48_000)
        tones.layout = "mono"
        for number in range(round(24 * seconds)):
            frame = av.VideoFrame.from_ndarray(ramp(number % 48), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(pictures.encode(frame))
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(48_000 * seconds)) / 48_000)
        wave[len(wave) // 2 :] = 0
        for first in range(0, len(wave), 1024):
            part = av.AudioFrame.from_ndarray(wave[None, first : first + 1024].astype(np.float32), "fltp", "mono")
            part.sample_rate, part.pts, part.time_base = 48_000, first, Fraction(1, 48_000)
            container.mux(tones.encode(part))
        container.mux(pictures.encode())
        container.mux(tones.encode())
    return path


def heard(path: Path) -> tuple[float, float]:
    """Until when there is a tone, and when the track ends, in seconds."""
    with av.open(str(path)) as container:
        parts = [(part.time or 0.0, part.to_ndarray()[0], part.sample_rate) for part in container.decode(audio=0)]
    ends = [start + len(wave) / rate for start, wave, rate in parts]
    loud = [start + len(wave) / rate for start, wave, rate in parts if np.abs(wave).max() > 0.1]
    return max(loud), max(ends)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("aac", ".mp4"),
        *((codec, ".mkv") for codec in ("aac", "libmp3lame", "mp2", "libopus", "ac3", "eac3")),
        *((codec, ".mkv") for codec in ("alac", "flac", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le")),
        *((codec, ".mov") for codec in ("pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f32be", "pcm_f64be")),
        ("pcm_f64le", ".mkv"),
    ],
)
def test_sound_is_copied_to_where_it_was(tmp_path: Path, codec: str, suffix: str) -> None:
    source = with_sound(tmp_path / f"in{suffix}", codec)
    sound = Sound(source, frame_times(source).origin)
    assert sound.there() and not sound.why_not()
    frames = decode_video(source).frames
    path = write_video(tmp_path / "out.mp4", iter(np.array_split(frames, 5)), 24, sound=sound)
    assert np.array_equal(decode_video(path).timestamps.round(3), decode_video(source).timestamps.round(3))
    assert heard(path) == pytest.approx(heard(source), abs=0.06)


def test_sound_that_cannot_go_along_is_named(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", "pcm_u8")
    assert not Sound(source).there() and Sound(source).why_not() == "an mp4 cannot hold its codec, pcm_u8"
    silent = write_video(tmp_path / "silent.mp4", FRAMES, 8)
    assert not Sound(silent).there() and not Sound(silent).why_not()


def test_raised_times_keep_what_was_there() -> None:
    raised = Timeline(SPANS).raised(3)
    assert len(raised.spans) == 3 * (len(SPANS) - 1) + 1
    assert [start for start, _ in raised.spans[::3]] == pytest.approx(STARTS)
    steps = np.diff([start for start, _ in raised.spans])
    assert steps == pytest.approx(np.repeat(np.diff(STARTS), 3) / 3) and raised.spans[-1][1] == 2.2
    assert Timeline(SPANS).raised(1).spans == SPANS
