"""Fréchet distance of clips: unrelated pictures look right one by one and are far from a video all the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.data import FrameCache
from inflate.errors import InputError
from inflate.evaluate.clip_frechet import (
    FRAME_BY_FRAME,
    GENERATED,
    REAL,
    Sampling,
    count_described,
    evaluate_frechet,
    markdown_table,
    shrink_to,
)
from inflate.evaluate.things import find_things
from tests.cli.toys import write_cache

SIZE, PAIRS = 8, 3


def blocks(pictures: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(1)


def clip_of(rng: np.random.Generator, related: bool) -> np.ndarray:
    """Pairs of random pictures, uint8: of one picture that fades a little, or each drawn by itself."""
    pictures = [rng.integers(0, 256, (SIZE, SIZE, 3)) for _ in range(2 * PAIRS)]
    shown = [pictures[0] * (1 - 0.01 * index) for index in range(2 * PAIRS)] if related else pictures
    return np.stack(shown).astype(np.uint8)


@pytest.mark.reference
def test_unrelated_pictures_lose_by_clips_though_their_frames_are_real(tmp_path: Path) -> None:
    things = find_things(FrameCache.open(write_cache(tmp_path / "frames", SIZE, of_test=3)))
    prompts, sampling = things.names("test", with_clip=True), Sampling(12, 30.0, 1, PAIRS)
    pool = things.names("train", with_clip=True)
    real = {name: things.clip_frames(name, 30.0, 12)[sampling.indices()] for name in pool}
    shuffled = np.concatenate(list(real.values()))[np.random.default_rng(0).permutation(len(pool) * 2 * PAIRS)]
    unrelated = list(shuffled.reshape(len(pool), 2 * PAIRS, SIZE, SIZE, 3))
    seen: list[int] = []
    report = evaluate_frechet(
        {GENERATED: list(real.values()), FRAME_BY_FRAME: unrelated},
        things, prompts, sampling, blocks, on_clip=lambda: seen.append(1),
    )  # fmt: skip
    ours, rival, others = (report.row(name) for name in (GENERATED, FRAME_BY_FRAME, REAL))
    # The very same frames in another order: no difference frame by frame, and a large one in time.
    assert rival.frames == pytest.approx(ours.frames, rel=1e-9)
    assert rival.change > 10 * ours.change and rival.clips > 1.5 * ours.clips
    # The other real clips are those very clips here, in another order.
    assert (others.clips, others.change) == (pytest.approx(ours.clips), pytest.approx(ours.change))
    assert len(seen) == count_described(things, prompts, 2) == 12 and report.size == SIZE
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["prompts"] == prompts and plain["rows"][2]["clips"] == rival.clips
    table = markdown_table(report).splitlines()
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1 and f"{rival.clips:.2f}" in table[-1]


def test_the_reference_itself_is_at_no_distance_and_draws_have_a_spread(tmp_path: Path) -> None:
    things = find_things(FrameCache.open(write_cache(tmp_path / "frames", SIZE, of_test=2)))
    prompts, sampling = things.names("test", with_clip=True), Sampling(12, 30.0, 2, PAIRS)
    made = [things.clip_frames(name, 30.0, 12)[sampling.indices()] for name in prompts]
    large = [clip.repeat(2, axis=1).repeat(2, axis=2) for clip in made]
    report = evaluate_frechet({GENERATED: made, "large": large}, things, prompts, sampling, blocks)
    for name in (GENERATED, "large"):
        row = report.row(name)
        assert (row.clips, row.frames, row.change) == pytest.approx((0, 0, 0), abs=1e-9)
    others = report.row(REAL)
    assert 0 < others.lowest < others.clips < others.highest
    assert evaluate_frechet({}, things, prompts, sampling, blocks).row(REAL) == others


def test_pairs_lie_evenly() -> None:
    assert Sampling(76, 40.0, 5, 3).indices() == [0, 5, 35, 40, 70, 75]
    assert Sampling(16, 8.0).indices() == list(range(16))
    assert Sampling(4, 8.0).indices() == [0, 1, 1, 2, 2, 3]
    with pytest.raises(InputError, match="2 frames have no pair of frames 2 apart"):
        Sampling(2, 8.0, 2).indices()


def test_what_does_not_fit(tmp_path: Path) -> None:
    assert shrink_to(np.full((1, 4, 4, 3), 7, np.uint8), 2).tolist() == np.full((1, 2, 2, 3), 7).tolist()
    with pytest.raises(InputError, match="8 x 8 px cannot be brought to 3 px"):
        shrink_to(clip_of(np.random.default_rng(0), related=True), 3)
    things = find_things(FrameCache.open(write_cache(tmp_path / "frames", SIZE, of_test=4)))
    with pytest.raises(InputError, match="the data has 2 with a clip, and as many are needed"):
        evaluate_frechet({}, things, things.names("test", with_clip=True), Sampling(12, 30.0), blocks)
