"""Windows cover a video, and what they count for makes a mean."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inflate.errors import InputError
from inflate.sampling.windows import shift_of, window_ramp, window_shares, window_starts

SIZES = {"num_frames": st.integers(1, 70), "window": st.integers(1, 12), "overlap": st.integers(0, 11)}


def weights_of(num_frames: int, window: int, overlap: int, starts: list[int], anchored: bool = False) -> torch.Tensor:
    """(windows, frames): what each window ends up counting for, found by one that says 1 where the others say 0."""
    rows = []
    for chosen in range(len(starts)):
        mean = torch.zeros(num_frames)
        shares = window_shares(num_frames, window, overlap, starts, anchored)
        for number, (start, share) in enumerate(zip(starts, shares, strict=True)):
            seen = slice(start, start + len(share))
            mean[seen] = torch.lerp(mean[seen], torch.full_like(share, number == chosen), share)
        rows.append(mean)
    return torch.stack(rows)


@given(**SIZES, call=st.integers(0, 30))
def test_windows_are_whole_cover_every_frame_and_overlap(num_frames: int, window: int, overlap: int, call: int) -> None:
    overlap = min(overlap, window - 1)
    starts = window_starts(num_frames, window, overlap, shift_of(call, window - overlap))
    assert starts[0] == 0 and starts[-1] == max(0, num_frames - window)
    gaps = [later - start for start, later in pairwise(starts)]
    assert all(1 <= gap <= window - overlap for gap in gaps)


@given(**SIZES, call=st.integers(0, 30), anchored=st.booleans())
def test_weights_are_positive_and_sum_to_one(
    num_frames: int, window: int, overlap: int, call: int, anchored: bool
) -> None:
    overlap = min(overlap, window - 1)
    starts = window_starts(num_frames, window, overlap, shift_of(call, window - overlap))
    weights = weights_of(num_frames, window, overlap, starts, anchored and overlap > 0)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(num_frames))


def test_neighbours_cross_fade_linearly() -> None:
    weights = weights_of(13, 8, 3, [0, 5])
    torch.testing.assert_close(weights[1, 4:9], torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    assert window_ramp(5, 2).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])


def test_an_anchored_windows_first_frame_counts_for_nothing() -> None:
    weights = weights_of(13, 8, 3, [0, 5], anchored=True)
    assert weights[0, 0] == 1 and weights[1, 5] == 0 and weights[0, 5] == 1 and weights[1, 6] > 0


def test_no_frame_is_at_a_window_s_end_throughout() -> None:
    ends = [set(window_starts(100, 16, 8, shift_of(call, 8))) - {0, 84} for call in range(8)]
    assert len(set.union(*ends)) > 40 and not set.intersection(*ends)
    assert all(before != after for before, after in pairwise(ends))


def test_windows_that_overlap_whole_are_refused() -> None:
    with pytest.raises(InputError, match="overlap must be at least 0 and less"):
        window_starts(20, 8, 8)
