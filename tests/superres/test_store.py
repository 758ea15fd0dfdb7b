"""Frames in a file: what goes in comes out, tiles blend as in memory, and windows take them as tensors."""

import pytest
import torch

from inflate.sampling.windows import windowed
from superres.store import FrameStore
from superres.tiling import tiles_of
from tests.superres.networks import seeded

ROUNDING = 1.6e-5  # half a 16-bit level


def frames(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(0)) * 2 - 1


def store_of(made: torch.Tensor) -> FrameStore:
    store = FrameStore(len(made), *made.shape[2:])
    for number, frame in enumerate(made):
        store[number] = frame
    return store


def test_frames_come_back_in_any_order() -> None:
    made = frames(3, 5, 7)
    store = store_of(made)
    assert len(store) == 3
    for number in (2, 0, 1, 2):
        torch.testing.assert_close(store[number], made[number], atol=ROUNDING, rtol=0)
    assert store[1].dtype == torch.float32
    ends = torch.tensor([-1.0, 0.0, 1.0])[:, None, None].expand(3, 5, 7)
    store[0] = ends
    assert torch.equal(store[0], ends)


@pytest.mark.parametrize(("height", "width"), [(20, 33), (9, 40), (16, 16), (33, 8)])
@pytest.mark.parametrize("scale", [1, 3])
def test_tiles_of_one_picture_make_it_again(height: int, width: int, scale: int) -> None:
    made = frames(2, height * scale, width * scale)
    store = FrameStore(2, height * scale, width * scale)
    for tile in tiles_of(height, width, 12, 4, scale):
        rows, columns = tile.times(scale)
        assert tile.share.shape == (rows.stop - rows.start, columns.stop - columns.start)
        assert tile.share.min() > 0 and tile.share.max() <= 1
        store.blend(rows, columns, made[..., rows, columns], tile.share)
    for number in range(2):
        torch.testing.assert_close(store[number], made[number], atol=4 * ROUNDING, rtol=0)


def test_shares_are_those_of_the_weighted_mean() -> None:
    """Each tile says its own number: the running mean must be the sum of weight times number over all weights."""
    expected, weights, running = (torch.zeros(20, 26) for _ in range(3))
    for number, tile in enumerate(tiles_of(20, 26, 12, 5)):
        where = (tile.rows, tile.columns)
        # share = w / (w + weights so far), so w follows from it where others have been.
        weight = torch.where(tile.share < 1, weights[where] * tile.share / (1 - tile.share), torch.ones(()))
        expected[where] += weight * number
        weights[where] += weight
        running[where] = torch.lerp(running[where], torch.full_like(tile.share, number), tile.share)
    torch.testing.assert_close(running, expected / weights)
    assert running[0, 0] == 0 and running[-1, -1] == number


def test_windows_take_frames_in_a_file_as_those_in_memory() -> None:
    video = frames(11, 4, 6).transpose(0, 1)

    def made(chunk: torch.Tensor, first: int) -> torch.Tensor:
        return (chunk * (0.5 + 0.04 * first)).clone()

    for overlap in (0, 2, 3):
        memory = torch.cat(list(windowed([video], 4, overlap, made)), dim=1)
        file = torch.cat(list(windowed([video], 4, overlap, lambda chunk, first: store_of(made(chunk, first)))), dim=1)
        torch.testing.assert_close(file, memory, atol=4 * ROUNDING, rtol=0)
