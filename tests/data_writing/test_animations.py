"""A gif or webp has as many frames as were written, each as long as it was to be shown, also where they are equal."""

import tracemalloc
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from inflate.data import decode, decode_video, frame_times
from inflate.data.animations import write_gif, write_webp
from inflate.data.reading import frames as reading
from inflate.data.writing import write_video
from inflate.errors import InputError

HEIGHT, WIDTH = 33, 47
LENGTHS = [100, 450, 70, 100, 30, 200, 100]  # ms

# Where the square is in each frame.
TABLE = {
    "one": [0],
    "two equal": [0, 0],
    "six equal": [0, 0, 0, 0, 0, 0],
    "all different": [0, 1, 2, 3],
    "equal at the start": [0, 0, 0, 1],
    "equal at the end": [0, 1, 1, 1],
    "in between and back": [0, 1, 1, 0, 0, 2, 0],
}


def moving(places: list[int], alpha: bool = False) -> np.ndarray:
    """A red square on grey, with alpha on nothing at all."""
    frames = np.full((len(places), HEIGHT, WIDTH, 4 if alpha else 3), 0 if alpha else 128, np.uint8)
    for frame, place in zip(frames, places, strict=True):
        frame[4:20, 2 + 8 * place : 18 + 8 * place] = (200, 30, 30, 255)[: frame.shape[-1]]
    return frames


def read(path: Path) -> tuple[np.ndarray, list[float]]:
    """RGBA frames and how long each is shown, by Pillow."""
    frames, lengths = [], []
    with Image.open(path) as picture:
        for number in range(picture.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            picture.seek(number)
            picture.load()
            frames.append(np.asarray(picture.convert("RGBA")))
            lengths.append(picture.info["duration"])
    return np.stack(frames), lengths


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("loops", [0, 1, 2, 4, 65_535, 100_000])
@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_it_is_shown_so_many_times(tmp_path: Path, suffix: str, loops: int, alpha: bool) -> None:
    path = write_video(tmp_path / f"out{suffix}", moving([0, 1, 1], alpha), 8, loops=loops)
    again = {0: 0, 1: None}.get(loops, min(loops, 65_535) - 1)  # as a gif says it
    with Image.open(path) as picture:
        assert picture.info.get("loop") == (again if suffix == ".gif" else min(loops, 65_535))
    times = frame_times(path)
    assert times.loops == times.raised(2).loops == times.extended(1).loops == min(loops, 65_535)
    assert decode_video(path).loop == (loops == 0)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("places", TABLE.values(), ids=list(TABLE))
@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_no_frame_is_merged(tmp_path: Path, suffix: str, places: list[int], alpha: bool) -> None:
    frames, lengths = moving(places, alpha), LENGTHS[: len(places)]
    path = tmp_path / f"out{suffix}"
    (write_gif if suffix == ".gif" else write_webp)(path, frames, lengths)
    starts = [0.0, *(end / 1000 for end in accumulate(lengths))]

    shown, found = read(path)
    assert found == lengths
    assert np.array_equal(shown[..., 3], frames[..., 3] if alpha else np.full(shown.shape[:3], 255))
    drawn = shown[..., 3] > 0
    assert np.abs(shown[..., :3].astype(int) - frames[..., :3])[drawn].mean() < 12
    for one, other in zip(range(len(places)), range(1, len(places)), strict=False):
        assert np.array_equal(shown[one], shown[other]) == (places[one] == places[other])

    ours = decode_video(path)
    assert ours.timestamps == pytest.approx(starts[:-1]) and ours.duration == pytest.approx(starts[-1])
    times = [(start, start + length / 1000) for start, length in zip(starts, lengths, strict=False)]
    assert frame_times(path).spans == [pytest.approx(one) for one in times]
    if suffix == ".gif":  # FFmpeg decodes no animated webp
        with av.open(str(path)) as container:
            assert [frame.time for frame in container.decode(video=0)] == pytest.approx(starts[:-1])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_video_that_stands_still_lasts_as_long_as_it_should(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"out{suffix}", moving([0] * 16), 8)
    assert len(decode_video(path).frames) == 16 and decode_video(path).duration == pytest.approx(2)


def test_equal_frames_cost_next_to_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    for suffix in (".gif", ".webp"):
        one, many = (write_video(tmp_path / f"{n}{suffix}", noise.repeat(n, axis=0), 8) for n in (1, 30))
        assert many.stat().st_size - one.stat().st_size < 29 * 64


def test_loops_and_lengths_beyond_the_format(tmp_path: Path) -> None:
    for suffix in (".gif", ".webp"):
        with Image.open(write_video(tmp_path / f"out{suffix}", moving([0, 0]), 8)) as picture:
            assert picture.info["loop"] == 0
    with pytest.raises(InputError, match=r"A gif shows a frame for 655.35 s at most"):
        write_video(tmp_path / "long.gif", moving([0]), 0.001)
    assert not (tmp_path / "long.gif").exists()


def test_alpha_is_kept_by_what_can_and_white_in_an_mp4(tmp_path: Path) -> None:
    frames = moving([0, 1], alpha=True)
    for suffix in (".gif", ".webp"):
        assert np.array_equal(read(write_video(tmp_path / f"out{suffix}", frames, 8))[0][..., 3], frames[..., 3])
    shown = decode_video(write_video(tmp_path / "out.mp4", frames[:, :32, :46], 8)).frames.astype(int)
    assert shown[0, 30].min() > 250 and np.abs(shown[0, 12, 10] - frames[0, 12, 10, :3]).max() < 10


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_frames_that_come_in_chunks_are_never_in_memory_together(tmp_path: Path, suffix: str) -> None:
    side, count = 128, 150
    picture = np.full((side, side, 3), 128, np.uint8)
    picture[: side // 2] = (200, 30, 30)

    def chunks() -> Iterator[np.ndarray]:
        for number in range(0, count, 3):
            yield np.stack([np.roll(picture, number + place, axis=0) for place in range(3)])

    write_video(tmp_path / f"few{suffix}", picture[None], 25)  # what libraries keep for themselves
    tracemalloc.start()
    path = write_video(tmp_path / f"out{suffix}", chunks(), 25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count * picture.nbytes / 2
    together = write_video(tmp_path / f"together{suffix}", np.concatenate(list(chunks())), 25)
    assert path.read_bytes() == together.read_bytes()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("places", [[0], [0, 1, 1, 2]])
def test_the_length_of_a_file_is_told_by_its_blocks_alone(
    tmp_path: Path, suffix: str, places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [10, 450, 70, 100][: len(places)]  # browsers show a frame of 10 ms for a tenth of a second
    path = tmp_path / f"out{suffix}"
    (write_gif if suffix == ".gif" else write_webp)(path, moving(places), lengths)
    by_decoding = decode_video(path)
    for module in (reading, decode):
        monkeypatch.setattr(module, "shown_frames", None)  # whoever decodes, fails
    times = frame_times(path)
    assert [start for start, _ in times.spans] == pytest.approx(by_decoding.timestamps)
    assert times.duration == pytest.approx(by_decoding.duration)
