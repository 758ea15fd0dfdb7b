"""Damaged files of every kind: whatever a decoder makes of them, readers answer with a sentence of ours or a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.cli.video_job import read_picture
from inflate.data import decode_video, frame_times, iterate_frames, video_facts
from inflate.data.sound import Sound
from inflate.errors import InputError

TRIALS = 12
STILLS = ("png", "jpg", "bmp", "tif", "webp", "avif")
ANIMATIONS = ("gif", "webp", "apng")
VIDEOS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}
READERS: dict[str, Callable[[Path], Any]] = {
    "picture": read_picture,
    "decode": decode_video,
    "facts": video_facts,
    "times": frame_times,
    "chunks": lambda path: list(iterate_frames(path)),
    "sound": lambda path: Sound(path).why_not(),
}


def pictures() -> list[Image.Image]:
    base = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    return [Image.fromarray(np.roll(base, 3 * number, 1)) for number in range(6)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, frames = tmp_path_factory.mktemp("samples"), pictures()
    for suffix in STILLS:
        frames[0].save(folder / f"still.{suffix}")
    for suffix in ANIMATIONS:
        frames[0].save(folder / f"moving.{suffix}", save_all=True, append_images=frames[1:], duration=100, loop=0)
    for suffix, codec in VIDEOS.items():
        with av.open(str(folder / f"video.{suffix}"), "w") as container:
            stream: Any = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
    return sorted(folder.iterdir())


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, with some bytes changed, or with some left out."""
    data, kind = bytearray(content), rng.integers(3)
    if kind == 0:
        return bytes(data[: rng.integers(1, len(data))])
    if kind == 1:
        for _ in range(int(rng.integers(1, 6))):
            data[rng.integers(len(data))] = rng.integers(256)
        return bytes(data)
    at = int(rng.integers(len(data)))
    return bytes(data[:at] + data[at + int(rng.integers(1, 40)) :])


def test_only_sentences_of_ours_come_out(samples: list[Path], tmp_path: Path) -> None:
    refused = 0
    for sample in samples:
        for trial in range(TRIALS):
            path = tmp_path / f"damaged{sample.suffix}"
            path.write_bytes(damaged(sample.read_bytes(), np.random.default_rng((7, len(sample.name), trial))))
            for name, read in READERS.items():
                try:
                    read(path)
                except InputError as error:
                    assert "\n" not in str(error), f"{sample.name}, {trial}, {name}: {error}"
                    refused += 1
                except Exception as error:
                    pytest.fail(f"{sample.name}, trial {trial}, {name}: {type(error).__name__}: {error}")
    assert refused > len(samples), "some of the damage was seen"
