"""Sampled frames are the ones a player shows; draws depend on seed, step and index only."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflate.data import ClipSampler, DataReport, FrameCache, FrameEntry, fps_curriculum, sample_clip_indices
from inflate.errors import InputError

UNEVEN = np.array([0.0, 0.1, 0.15, 0.4, 0.8])


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (4, [0, 2, 3, 3, 4, 4]),  # 0, .25, .5, .75, 1, 1.25 s
        (8, [0, 1, 2, 2, 3, 3]),  # 0, .125, .25, .375, .5, .625 s
        (30, [0, 0, 0, 1, 1, 2]),  # 0, .033, .067, .1, .133, .167 s
    ],
)
def test_uneven_timestamps_give_the_frame_shown_at_each_time(fps: float, expected: list[int]) -> None:
    assert sample_clip_indices(UNEVEN, 1.0, fps, 6).tolist() == expected


def test_a_looping_clip_wraps_at_its_duration() -> None:
    # 0, .25, .5, .75, then 1 and 1.25 s are 0 and .25 s again
    assert sample_clip_indices(UNEVEN, 1.0, 4, 6, loop=True).tolist() == [0, 2, 3, 3, 0, 2]
    assert sample_clip_indices(UNEVEN, 1.0, 4, 3, start=0.9, loop=True).tolist() == [4, 2, 3]


def test_a_frame_shown_exactly_at_its_own_time_despite_rounding() -> None:
    timestamps = np.arange(30) / 30
    assert sample_clip_indices(timestamps, 1.0, 30, 30).tolist() == list(range(30))
    assert sample_clip_indices(timestamps, 1.0, 30, 60, loop=True).tolist() == list(range(30)) * 2


@given(
    gaps=st.lists(st.floats(0.01, 0.5), min_size=1, max_size=20),
    fps=st.floats(1, 30),
    start=st.floats(0, 5),
    loop=st.booleans(),
)
def test_every_sampled_frame_is_on_screen_at_its_time(gaps: list[float], fps: float, start: float, loop: bool) -> None:
    ends = np.cumsum(gaps)
    timestamps, duration = np.concatenate([[0.0], ends[:-1]]), float(ends[-1])
    for step, index in enumerate(sample_clip_indices(timestamps, duration, fps, 5, start, loop)):
        time = start + step / fps
        time = time % duration if loop else min(time, duration)
        shown_from, shown_until = timestamps[index], ends[index]
        near = 1e-5
        wrapped = loop and (time < near or time > duration - near)
        assert wrapped or shown_from - near <= time <= shown_until + near


@pytest.mark.parametrize(("fps", "count"), [(0, 4), (-1, 4), (8, 0), (float("nan"), 4)])
def test_bad_rates_and_counts_are_refused(fps: float, count: int) -> None:
    with pytest.raises(InputError, match="both must be positive"):
        sample_clip_indices(UNEVEN, 1.0, fps, count)


def test_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="without frames"):
        sample_clip_indices(np.array([]), 0.0, 8, 4)


@pytest.mark.parametrize(("progress", "mean"), [(0.0, 24.2), (0.25, 1 + 29 * 2.5 / 3.5), (0.5, 15.5), (1.0, 6.8)])
def test_the_curriculum_has_the_means_of_its_beta_functions(progress: float, mean: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([fps_curriculum(progress, rng) for _ in range(20_000)])
    assert abs(drawn.mean() - mean) < 0.25  # the standard error is below 0.06
    assert drawn.min() >= 1 and drawn.max() <= 30


def test_the_curriculum_is_flat_half_way() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([fps_curriculum(0.5, rng) for _ in range(20_000)])
    counts, _ = np.histogram(drawn, bins=10, range=(1, 30))
    assert counts.min() > 1800 and counts.max() < 2200


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_the_curriculum_ends_at_both_ends(progress: float) -> None:
    with pytest.raises(InputError, match="from 0"):
        fps_curriculum(progress, np.random.default_rng(0))


def toy_cache(folder: Path, loop: bool, duration: float = 2.0, split: str = "train") -> FrameCache:
    entries = tuple(
        FrameEntry(f"clip{i}", "", (), split, "clip", i * 20, 20, np.arange(20) * duration / 20, duration, loop)
        for i in range(3)
    )
    np.repeat(np.arange(60, dtype=np.uint8), 2 * 2 * 3).tofile(folder / "frames.bin")
    return FrameCache(folder, "toys", 2, entries, DataReport(3))


def test_draws_depend_on_seed_step_and_index_only(tmp_path: Path) -> None:
    cache = toy_cache(tmp_path, loop=True)
    sampler, again = ClipSampler(cache, 16, 100, seed=3), ClipSampler(cache, 16, 100, seed=3)
    forwards = [sampler.sample(step, index) for step in range(5) for index in range(4)]
    backwards = [again.sample(step, index) for step in reversed(range(5)) for index in reversed(range(4))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert (one.clip, one.fps, one.start) == (other.clip, other.fps, other.start)
        assert np.array_equal(one.frame_indices, other.frame_indices)
    assert len({draw.fps for draw in forwards}) == 20
    other_seed = ClipSampler(cache, 16, 100, seed=4).sample(0, 0)
    assert other_seed.fps != forwards[0].fps


def test_a_batch_holds_the_frames_of_its_draws(tmp_path: Path) -> None:
    sampler = ClipSampler(toy_cache(tmp_path, loop=True), 8, 10)
    batch = sampler.batch(2, 4)
    assert batch.frames.shape == (4, 8, 2, 2, 3) and batch.frames.dtype == np.uint8
    for row, draw in zip(batch.frames, batch.draws, strict=True):
        assert row[:, 0, 0, 0].tolist() == draw.frame_indices.tolist()
        assert set(draw.frame_indices // 20) == {draw.clip}
    halves = [sampler.batch(2, 2, offset) for offset in (0, 2)]
    assert np.array_equal(np.concatenate([half.frames for half in halves]), batch.frames)


def test_the_frame_rate_falls_as_training_goes_on(tmp_path: Path) -> None:
    sampler = ClipSampler(toy_cache(tmp_path, loop=True), 4, 1000)
    early, late = (np.mean([sampler.sample(step, i).fps for i in range(300)]) for step in (0, 1000))
    assert early > 23 and late < 8


def test_a_clip_that_loops_starts_anywhere(tmp_path: Path) -> None:
    sampler = ClipSampler(toy_cache(tmp_path, loop=True, duration=5.0), 16, 10)
    starts = np.array([sampler.sample(3, index).start for index in range(2000)])
    counts, _ = np.histogram(starts, bins=5, range=(0, 5))
    assert 0 <= starts.min() and starts.max() < 5 and counts.min() > 340 and counts.max() < 460


def test_a_clip_that_does_not_loop_starts_where_all_frames_fit(tmp_path: Path) -> None:
    sampler = ClipSampler(toy_cache(tmp_path, loop=False), 16, 10)
    draws = [sampler.sample(10, i) for i in range(50)]  # low rates: 16 frames rarely fit into two seconds
    for draw in draws:
        assert draw.start + 15 / draw.fps <= 2.0 + 1e-9
        assert 7.5 - 1e-9 <= draw.fps <= 30
        assert np.all(np.diff(draw.frame_indices) >= 0)
    assert any(draw.fps == 7.5 for draw in draws)


def test_a_clip_shorter_than_half_a_second_holds_its_last_frame(tmp_path: Path) -> None:
    draw = ClipSampler(toy_cache(tmp_path, loop=False, duration=0.2), 16, 10).sample(0, 0)
    assert draw.fps == 30 and draw.start == 0
    assert draw.frame_indices[-1] % 20 == 19


def test_a_given_rate_replaces_the_curriculum(tmp_path: Path) -> None:
    sampler = ClipSampler(toy_cache(tmp_path, loop=True), 16, 10, fps=8)
    assert {sampler.sample(step, 0).fps for step in range(5)} == {8}


def test_a_split_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="toys has no clips of two or more frames in the train split"):
        ClipSampler(toy_cache(tmp_path, loop=True, split="test"), 16)


@pytest.mark.parametrize("arguments", [{"num_frames": 0}, {"num_frames": 4, "fps": 31.0}])
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(InputError):
        ClipSampler(toy_cache(tmp_path, loop=True), **arguments)
