"""Which known frames a new one sees, and where the flow moves them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from interp.neighbours import NUMBERS, Neighbours, join_neighbours, move, neighbours_of, places
from tests.interp.networks import seeded


def disc(column: float) -> Tensor:
    """(64, 64): a dark disc on white with its centre in that column."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return torch.tanh(((columns - column) ** 2 + (rows - 32) ** 2).sqrt() - 10)


def rolling_ball(frames: int) -> Tensor:
    """(3, F, 64, 64): a disc that goes two pixels to the right per frame."""
    return torch.stack([disc(22.0 + 2 * frame) for frame in range(frames)])[None].expand(3, -1, -1, -1)


def test_places_are_the_nearest_two_known_frames_on_both_sides() -> None:
    found = [
        (place.before, place.previous, place.following, place.after)
        for place in places([2, 6, 7, 11], [0, 3, 5, 9, 13])
    ]
    assert found == [(2, 2, 2, 6), (2, 2, 6, 7), (2, 2, 6, 7), (6, 7, 11, 11), (7, 11, 11, 11)]
    assert [place.time for place in places([2, 6], [0, 3, 5, 9])] == [1.0, 0.25, 0.75, 1.0]
    assert [place.distance for place in places([2, 6], [0, 3, 5, 9])] == [2, 1, 1, 3]


def test_the_numbers_of_a_place_say_on_which_side_it_lies_and_how_far() -> None:
    early, between, late = (place.numbers() for place in places([4, 8, 12], [2, 6, 16]))
    assert early == (1.0, -1.0, 0.25, 0.0, 0.0, 0.5)
    assert between == (0.5, 0.0, 0.25, 0.0, 0.5, 0.5)
    assert late == (1.0, 1.0, 0.5, 0.5, 0.0, 0.0)
    assert len(late) == NUMBERS


@pytest.mark.reference
def test_moving_by_whole_pixels_is_rolling() -> None:
    pictures = torch.rand(2, 3, 8, 12, generator=seeded(0))
    flow = torch.tensor([2.0, -1.0])[None, :, None, None].expand(2, 2, 8, 12)
    padded = functional.pad(pictures, (0, 2, 1, 0), mode="replicate")
    torch.testing.assert_close(move(pictures, flow), padded[..., :8, 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(move(pictures, torch.zeros(2, 2, 8, 12)), pictures, atol=1e-5, rtol=0)


def test_between_known_frames_both_are_moved_along_the_flow() -> None:
    video = rolling_ball(6)
    around = neighbours_of(video, [0, 4], [2])
    linear = torch.lerp(around.previous, around.following, around.time[:, None, None, None])
    truth = video[:, 2]
    assert (around.blend[0] - truth).abs().mean() < (linear[0] - truth).abs().mean() / 2


@pytest.mark.parametrize(("known", "new", "nearest"), [([0, 4], 6, 4), ([4, 8], 2, 4)])
def test_beyond_known_frames_motion_goes_on_as_it_was(known: list[int], new: int, nearest: int) -> None:
    video = rolling_ball(12)
    around = neighbours_of(video, known, [new])
    assert torch.equal(around.previous, around.following) and not around.flow_previous.any()
    torch.testing.assert_close(around.from_previous[0], video[:, nearest], atol=1e-5, rtol=0)
    truth, still = video[:, new], (video[:, nearest] - video[:, new]).abs().mean()
    assert torch.equal(around.blend, around.from_following)
    assert (around.blend[0] - truth).abs().mean() < still / 2


def test_a_third_known_frame_bends_the_way() -> None:
    """A disc that goes 1, 3, 5, ... pixels: halfway in time is not halfway in space."""
    columns = [20.0 + step**2 / 8 for step in range(13)]
    video = torch.stack([disc(column) for column in columns])[None].expand(3, -1, -1, -1)
    straight, bent = neighbours_of(video, [4, 8], [6]), neighbours_of(video, [0, 4, 8, 12], [6])
    errors = [(around.blend[0] - video[:, 6]).abs().mean() for around in (straight, bent)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("known", "new", "expected"),
    [
        ([0, 4, 8, 12], 6, (-20.0, 28.0)),  # at t^2 pixels, 36 lies 20 behind 16 and 28 before 64
        ([0, 4, 6, 14], 5, (-9.0, 11.0)),  # however far the third frames are
        ([0, 1], 3, (0.0, -2.0)),  # beyond, motion goes on evenly: twice the way from 1 to 0
        ([0, 1], 20, (0.0, -4.0)),  # and four times at most
    ],
)
def test_pixels_go_at_a_constant_acceleration(
    known: list[int], new: int, expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flows that are exact for a picture at t^2 pixels: arXiv:1911.00627, equation 3, is exact then."""

    def exact(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        way = float(second[0, 0, 0]) ** 2 - float(first[0, 0, 0]) ** 2
        return np.stack([np.full(first.shape[:2], way), np.zeros(first.shape[:2])], axis=-1).astype(np.float32)

    monkeypatch.setattr("interp.neighbours.optical_flow", exact)
    levels = torch.arange(21.0) / 127.5 - 1  # a frame's pixels hold its number
    around = neighbours_of(levels[None, :, None, None].expand(3, -1, 4, 4), known, [new])
    found = [float(flow[0, 0, 0, 0]) for flow in (around.flow_previous, around.flow_following)]
    assert found == pytest.approx(expected) and not around.flow_previous[:, 1].any()


def test_one_known_frame_stands_still() -> None:
    video = rolling_ball(4)
    around = neighbours_of(video, [1], [0, 3])
    assert not around.flow_previous.any() and not around.flow_following.any()
    for name in ("previous", "following", "before", "after", "from_previous", "from_following"):
        torch.testing.assert_close(getattr(around, name)[0], video[:, 1], atol=1e-5, rtol=0)


def test_neighbours_are_joined_and_taken_row_by_row() -> None:
    video = rolling_ball(8)
    first, second = neighbours_of(video, [0, 4], [1, 2]), neighbours_of(video, [3, 7], [5])
    joined = join_neighbours([first, second])
    assert torch.equal(joined.take(torch.tensor([False, False, True])).flow_following, second.flow_following)
    assert torch.equal(joined.take(torch.tensor([1])).numbers, first.numbers[1:])


def test_backwards_is_how_the_reversed_video_is_seen() -> None:
    video, known, new = rolling_ball(16), [3, 5, 9, 12], [0, 4, 7, 8, 15]
    straight = neighbours_of(video, known, new)
    turned = neighbours_of(video.flip(1), [15 - index for index in reversed(known)], [15 - index for index in new])
    for name in Neighbours.__dataclass_fields__:
        torch.testing.assert_close(getattr(straight.backwards(), name), getattr(turned, name), atol=1e-5, rtol=0)
