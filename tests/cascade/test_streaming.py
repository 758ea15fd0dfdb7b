"""Upscaling holds a bounded number of frames: ten times the length, the same peak of tensors and of numpy arrays."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.data import iterate_frames
from inflate.data.writing import write_video
from tests.cli.toys import super_resolution_stages

SHORT, LONG, SIDE = 24, 240, 8
SAMPLE_EVERY = 16  # frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random super-resolution networks, 4 and 2 times, as a family on disk."""
    path = tmp_path_factory.mktemp("families") / "sr"
    Cascade(super_resolution_stages(), device="cpu", family="toys").save_pretrained(path)
    return path


def frames_of(count: int) -> Iterator[Tensor]:
    """Single frames (3, 1, SIDE, SIDE), made when asked for."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.rand(3, 1, SIDE, SIDE, generator=generator) * 2 - 1


def live_tensor_bytes() -> int:
    """Bytes of all tensors that Python can reach, each storage once; a network's parameters are of another type."""
    storages = [found.untyped_storage() for found in gc.get_objects() if type(found) is Tensor]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def peak_of_tensors(folder: Path, count: int, hold: Callable[[Iterator[Tensor]], Iterator[Tensor]] = iter) -> int:
    """Most bytes of tensors that were alive at once while a video was enlarged and its frames let go."""
    gc.collect()
    before, peak, made = live_tensor_bytes(), 0, 0
    cascade = Cascade.from_pretrained(folder, device="cpu")
    for chunk in hold(cascade.upscale_chunks(frames_of(count), count, generator=torch.Generator().manual_seed(0))):
        if made % SAMPLE_EVERY == 0 or made == count - 1:
            peak = max(peak, live_tensor_bytes() - before)
        made += chunk.shape[1]
    assert made == count and chunk.shape[2:] == (8 * SIDE, 8 * SIDE)
    return peak


def test_ten_times_the_frames_take_the_same_tensors(folder: Path) -> None:
    short, long = peak_of_tensors(folder, SHORT), peak_of_tensors(folder, LONG)
    one_frame = 3 * (8 * SIDE) ** 2 * 4
    assert one_frame < short and long < 1.1 * short, f"{short} bytes became {long}"
    # The measure sees frames that are kept: as a list, they are all there at once.
    kept = peak_of_tensors(folder, SHORT, lambda chunks: iter(list(chunks)))
    assert kept >= SHORT * one_frame > 3 * short


def peak_of_arrays(work: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held at once beyond those before; memory of torch and FFmpeg does not count."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def video(path: Path, count: int, side: int) -> Path:
    """A square that moves, written in chunks."""
    chunk = np.full((8, side, side, 3), 255, np.uint8)
    for index in range(len(chunk)):
        chunk[index, 2:6, index : index + 4] = (200, 30, 60)
    return write_video(path, (chunk for _ in range(count // len(chunk))), 10)


def test_the_command_reads_and_writes_in_chunks(folder: Path, tmp_path: Path) -> None:
    """Decoding and encoding are those of ``inflate upscale``: frames become 64 px large, 2.9 MB in all."""
    read = {count: video(tmp_path / f"{count}.mp4", count, 2 * SIDE) for count in (SHORT, LONG)}

    def upscale(count: int) -> None:
        out = tmp_path / f"{count}-large.mp4"
        arguments = ["upscale", str(read[count]), "-o", str(out), "--model", str(folder), "--quiet"]
        assert main([*arguments, "--until", "super_resolution", "--force"]) == 0

    upscale(SHORT)  # what is imported and remembered once
    short, long = (peak_of_arrays(lambda count=count: upscale(count)) for count in (SHORT, LONG))
    added_frames = (LONG - SHORT) * 3 * (8 * SIDE) ** 2
    assert long - short < 0.2 * added_frames, f"{short} bytes became {long}"


def test_files_are_read_and_written_in_chunks(tmp_path: Path) -> None:
    side, at_once = 64, 16
    path = tmp_path / "in.mp4"
    written = peak_of_arrays(lambda: video(path, LONG, side))
    read = peak_of_arrays(lambda: [len(chunk) for chunk in iterate_frames(path, at_once)])
    # A few chunks, with a copy or two of a frame on its way, of a video of fifteen.
    chunk = at_once * 3 * side**2
    assert chunk < read < 4 * chunk and written < 4 * chunk
    assert sum(len(part) for part in iterate_frames(path, at_once)) == LONG
