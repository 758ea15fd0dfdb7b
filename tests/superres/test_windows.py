import gc
import itertools
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inflate.errors import InputError
from inflate.sampling.windows import check_window, count_windows, windowed


def video(num_frames: int) -> torch.Tensor:
    """Frames that hold their own number."""
    return torch.arange(num_frames, dtype=torch.float32)[None, :, None, None].expand(3, -1, 2, 2).clone()


def cut(frames: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= frames.shape[1]:
            return
        yield frames[:, start : start + size]
        start += size


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 8), st.lists(st.integers(1, 11), min_size=1, max_size=4))
def test_frames_come_back_in_order_and_windows_see_what_they_should(
    num_frames: int, window: int, overlap: int, sizes: list[int]
) -> None:
    overlap = min(overlap, window - 1)
    seen: list[list[float]] = []

    def process(frames: torch.Tensor, first: int) -> torch.Tensor:
        numbers = frames[:, 0, 0, 0].tolist()
        assert numbers == [first + index for index in range(len(frames))]
        seen.append(numbers)
        return frames.clone()

    made = torch.cat(list(windowed(cut(video(num_frames), sizes), window, overlap, process)), dim=1)
    assert torch.equal(made, video(num_frames))
    assert len(seen) == count_windows(num_frames, window, overlap)
    assert all(len(numbers) == window for numbers in seen[:-1])
    assert all(before[window - overlap :] == after[:overlap] for before, after in itertools.pairwise(seen))


def test_the_cross_fade_is_linear_and_without_a_jump() -> None:
    # Each window answers with its own number: the seam must rise in equal steps.
    def process(frames: torch.Tensor, first: int) -> torch.Tensor:
        return torch.full_like(frames, first / 4)

    made = torch.cat(list(windowed([video(12)], 8, 4, process)), dim=1)[0, :, 0, 0]
    torch.testing.assert_close(made, torch.tensor([0, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1]))


def test_memory_does_not_grow_with_the_video() -> None:
    alive: set[int] = set()
    most = 0

    def counted(tensor: torch.Tensor, frames: int) -> torch.Tensor:
        nonlocal most
        for _ in range(frames):
            key = next(counter)
            alive.add(key)
            weakref.finalize(tensor, alive.discard, key)
        most = max(most, len(alive))
        return tensor

    counter = itertools.count()

    def chunks(num_chunks: int) -> Iterator[torch.Tensor]:
        for _ in range(num_chunks):
            yield counted(torch.zeros(3, 5, 2, 2), 5)

    def process(frames: torch.Tensor, first: int) -> torch.Tensor:
        counted(frames, len(frames))
        return counted(frames.clone(), len(frames))

    peaks = []
    for num_chunks in (10, 100):
        most = 0
        made = 0
        for part in windowed(chunks(num_chunks), 8, 2, process):
            made += part.shape[1]
        del part
        gc.collect()
        assert made == 5 * num_chunks and not alive
        peaks.append(most)
    assert peaks[0] == peaks[1] <= 5 + 8 + 8 + 8


@pytest.mark.parametrize("bad", [torch.zeros(1, 2, 4, 4), torch.zeros(3, 4, 4), torch.zeros(3, 0, 4, 4)])
def test_what_is_no_chunk_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"A chunk of frames must be \(3, frames, height, width\)"):
        list(windowed([bad], 4, 0, lambda frames, first: frames))


def test_frames_of_two_sizes_and_bad_windows_are_refused() -> None:
    with pytest.raises(InputError, match=r"one size; got \(2, 2\) and then \(4, 4\)"):
        list(windowed([video(2), torch.zeros(3, 1, 4, 4)], 8, 0, lambda frames, first: frames))
    for window, overlap in ((0, 0), (4, 4), (4, -1)):
        with pytest.raises(InputError, match="overlap must be at least 0 and less"):
            check_window(window, overlap)
    assert list(windowed([], 4, 1, lambda frames, first: frames)) == []
