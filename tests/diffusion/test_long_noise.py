"""FreeNoise: standard normal everywhere, and equal to an earlier frame's noise or independent of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inflate.diffusion.long_noise import reschedule_noise, rescheduled_frames
from inflate.errors import InputError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 90), st.integers(1, 16), st.integers(1, 16), st.integers(0, 5))
def test_each_stretch_is_a_permutation_of_the_one_a_window_before(
    count: int, window: int, stride: int, seed: int
) -> None:
    stride = min(stride, window)
    taken = rescheduled_frames(count, window, stride, seeded(seed)).tolist()
    assert taken[:window] == list(range(min(window, count)))
    for begin in range(window, count - stride + 1, stride):
        assert sorted(taken[begin : begin + stride]) == sorted(taken[begin - window : begin - window + stride])
    if window % stride == 0:
        for begin in range(0, count - window + 1, stride):
            assert sorted(taken[begin : begin + window]) == list(range(window))
    assert rescheduled_frames(count + 7, window, stride, seeded(seed)).tolist()[:count] == taken


def test_frames_are_standard_normal_and_correlate_wholly_or_not_at_all() -> None:
    own = torch.randn(1, 4, 8, 64, 64, generator=seeded(0), dtype=torch.float64)
    frames = reschedule_noise(own, 32, 4, seeded(1))[0].transpose(0, 1).flatten(1)
    assert frames.shape == (32, 4 * 64 * 64)
    torch.testing.assert_close(frames.mean(1), torch.zeros(32, dtype=torch.float64), atol=0.03, rtol=0)
    torch.testing.assert_close(frames.var(1), torch.ones(32, dtype=torch.float64), atol=0.03, rtol=0)
    taken = rescheduled_frames(32, 8, 4, seeded(1))
    expected = (taken[:, None] == taken[None]).double()
    assert 0 < expected.sum() - 32 < 32 * 32
    torch.testing.assert_close(torch.corrcoef(frames), expected, atol=0.04, rtol=0)
    assert (taken[8:] != torch.arange(8, 32) % 8).any()  # shuffled, not only repeated


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(InputError, match="shuffled within 1 to 8 frames"):
        rescheduled_frames(20, 8, 9)
