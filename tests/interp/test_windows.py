"""Windows by brute force: every unknown frame once, each window told something that is there by then."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflate.errors import InputError
from inflate.sampling.windows import Window, plan_windows


def check(known: list[bool], size: int) -> tuple[Window, ...]:
    windows = plan_windows(known, size)
    there = {index for index, is_known in enumerate(known) if is_known}
    for window in windows:
        told = {index for index, is_known in zip(window.frames, window.known, strict=True) if is_known}
        assert told and told <= there
        assert window.new and set(window.new) <= set(window.frames) - there
        assert len(window.frames) <= size and list(window.frames) == sorted(set(window.frames))
        there |= set(window.new)
    assert there == set(range(len(known)))
    made = [index for window in windows for index in window.new]
    assert len(made) == len(set(made)) == known.count(False)
    return windows


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("count", range(1, 11))
def test_every_mask_of_a_short_video(count: int, size: int) -> None:
    for known in itertools.product([False, True], repeat=count):
        if any(known):
            check(list(known), size)


@given(st.lists(st.booleans(), min_size=1, max_size=120).filter(any), st.integers(3, 20))
def test_any_mask_of_a_long_video(known: list[bool], size: int) -> None:
    check(known, size)


@given(st.integers(1, 300), st.integers(0, 299), st.integers(3, 16))
def test_one_known_frame_anywhere(count: int, place: int, size: int) -> None:
    check([index == min(place, count - 1) for index in range(count)], size)


def test_sixteen_frames_at_skip_five_are_five_windows_that_share_known_frames() -> None:
    windows = check([index % 5 == 0 for index in range(76)], 16)
    assert [(window.frames[0], window.frames[-1]) for window in windows] == [
        (0, 15),
        (15, 30),
        (30, 45),
        (45, 60),
        (60, 75),
    ]
    assert all(window.known == (True, False, False, False, False) * 3 + (True,) for window in windows)


@pytest.mark.parametrize("skip", range(2, 9))
def test_windows_between_known_frames_have_both_ends_known(skip: int) -> None:
    for window in check([index % skip == 0 for index in range(15 * skip + 1)], 16):
        assert window.known[0] and window.known[-1] and window.stride == 1


def test_a_video_of_one_window_is_one_window() -> None:
    known = [index in (3, 9) for index in range(16)]
    [window] = check(known, 16)
    assert window.known == tuple(known) and window.frames == tuple(range(16))


def test_extrapolation_reaches_on_from_the_last_frames_made() -> None:
    first, second, third = check([index < 1 for index in range(32)], 16)
    assert first.frames == tuple(range(16)) and first.known.count(True) == 1
    assert second.frames == tuple(range(8, 24)) and second.known == (True,) * 8 + (False,) * 8
    assert third.new == tuple(range(24, 32))
    [few] = check([index < 40 for index in range(44)], 16)
    assert few.frames == tuple(range(28, 44)) and few.new == tuple(range(40, 44))


def test_extrapolation_before_the_first_frame_mirrors_that_after_the_last() -> None:
    after = check([index < 3 for index in range(40)], 16)
    before = check([index >= 37 for index in range(40)], 16)
    assert [[39 - index for index in reversed(window.frames)] for window in before] == [
        list(window.frames) for window in after
    ]


def test_a_gap_wider_than_a_window_is_crossed_coarsely_first() -> None:
    coarse, *fine = check([index in (0, 60) for index in range(61)], 16)
    assert coarse.frames == tuple(range(0, 61, 4)) and coarse.stride == 4
    assert coarse.known[0] and coarse.known[-1] and coarse.known.count(True) == 2
    assert all(window.known[0] and window.known[-1] and window.stride == 1 for window in fine)


def test_nothing_to_do_and_nothing_to_go_on() -> None:
    assert plan_windows([True] * 30, 16) == ()
    with pytest.raises(InputError, match="at least one known frame"):
        plan_windows([False] * 5, 16)
    with pytest.raises(InputError, match="sees 2 frames at once; 5 frames need one that sees 3"):
        plan_windows([True, False, False, False, False], 2)
