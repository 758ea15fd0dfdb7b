import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inflate.errors import InputError
from superres.tiling import blend_tiles, check_tile, tile_starts, tile_weight
from tests.superres.networks import seeded


@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 79))
def test_tiles_cover_everything_and_stay_inside(size: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile - 1)
    starts = tile_starts(size, tile, overlap)
    covered = torch.zeros(size)
    for start in starts:
        covered[start : start + tile] += 1
    assert covered.min() >= 1 and starts[0] == 0 and starts == sorted(set(starts))
    assert starts == [0] or starts[-1] + tile == size


def test_weights_of_two_tiles_add_up_to_one() -> None:
    left, right = tile_weight(32, 8, True, False), tile_weight(32, 8, False, True)
    torch.testing.assert_close(left[-8:] + right[:8], torch.ones(8))
    assert torch.equal(left[:-8], torch.ones(24)) and torch.equal(right[8:], torch.ones(24))
    assert (left[-8:].diff() < 0).all()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (40, 32), (32, 200)])
def test_what_is_said_of_each_pixel_alone_is_not_changed_by_tiles(height: int, width: int) -> None:
    sample, condition = (torch.randn(2, 3, height, width, generator=seeded(seed)) for seed in (0, 1))
    made = blend_tiles(lambda a, b: 2 * a - b, sample, condition, 32, 10, 8)
    torch.testing.assert_close(made, 2 * sample - condition)


def test_one_tile_is_the_function_itself() -> None:
    given_, calls = torch.randn(1, 3, 32, 24, generator=seeded(0)), []

    def predict(sample: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        calls.append(sample)
        return sample * 3

    assert torch.equal(blend_tiles(predict, given_, given_, 32, 8, 8), given_ * 3)
    assert len(calls) == 1 and calls[0] is given_


def test_tiles_have_the_sides_they_must() -> None:
    shapes = set()

    def predict(sample: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(sample.shape[-2:]))
        return sample

    blend_tiles(predict, torch.zeros(1, 3, 80, 160), torch.zeros(1, 3, 80, 160), 30, 5, 16)
    assert shapes == {(32, 32)}


def test_bad_tiles_are_refused() -> None:
    for tile, overlap in ((0, 0), (8, 8), (8, -1)):
        with pytest.raises(InputError, match="overlap must be at least 0 and less"):
            check_tile(tile, overlap)
