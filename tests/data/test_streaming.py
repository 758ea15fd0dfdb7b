"""Reading facts and frames of a file without holding it, and writing chunks as they come."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inflate.data import VideoError, decode_video, iterate_frames, video_facts
from inflate.data.writing import write_video
from inflate.errors import InputError


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    ramp = np.linspace(0, 255, 18).astype(np.uint8)
    return np.stack([np.roll(np.repeat(ramp[None, :, None], 16, 0).repeat(3, 2), index, 1) for index in range(21)])


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_facts_and_chunks_agree_with_decoding_whole(tmp_path: Path, frames: np.ndarray, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames, 10)
    facts, whole = video_facts(path), decode_video(path)
    assert (facts.num_frames, facts.width, facts.height) == (21, 18, 16)
    assert facts.fps == pytest.approx(10, rel=1e-3) and facts.duration == pytest.approx(2.1, abs=1e-3)
    chunks = list(iterate_frames(path, 8))
    assert [len(chunk) for chunk in chunks] == [8, 8, 5]
    assert np.array_equal(np.concatenate(chunks), whole.frames)
    from_memory = np.concatenate(list(iterate_frames(path.read_bytes(), name=path.name)))
    assert np.array_equal(from_memory, whole.frames)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_chunks_are_written_as_the_whole_is(tmp_path: Path, frames: np.ndarray, suffix: str) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", frames, 12)
    parts = write_video(tmp_path / f"parts{suffix}", iter(np.split(frames, [4, 5, 17])), 12)
    assert parts.read_bytes() == whole.read_bytes()


def test_an_mp4_holds_one_chunk_at_a_time(tmp_path: Path, frames: np.ndarray) -> None:
    given: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def made() -> Iterator[np.ndarray]:
        for index in range(0, 21, 3):
            chunk = frames[index : index + 3].copy()
            given.append(weakref.ref(chunk))
            yield chunk
            del chunk
            gc.collect()
            alive.append(sum(one() is not None for one in given))

    write_video(tmp_path / "a.mp4", made(), 12)
    assert len(given) == 7 and max(alive[1:]) <= 2  # the first is kept for its size
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_bad_files_and_chunks_are_one_sentence(tmp_path: Path, frames: np.ndarray) -> None:
    for name in ("a.mp4", "a.webp"):
        (tmp_path / name).write_text("no video")
        with pytest.raises(VideoError, match="cannot read"):
            video_facts(tmp_path / name)
        with pytest.raises(VideoError, match="cannot read"):
            list(iterate_frames(tmp_path / name))
    with pytest.raises(VideoError, match="no such file"):
        list(iterate_frames(tmp_path / "none.mp4"))
    with pytest.raises(VideoError, match="no such file"):
        video_facts(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="must have one size"):
        write_video(tmp_path / "b.mp4", iter([frames, frames[:, :8]]), 8)
    with pytest.raises(InputError, match="at least one frame"):
        write_video(tmp_path / "b.gif", iter([]), 8)
    assert not list(tmp_path.glob("*b.*"))


def test_a_cut_file_is_told_once_the_place_is_reached(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_video(tmp_path / "a.webp", frames, 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match="cannot read"):
        list(iterate_frames(path))
