from pathlib import Path

import numpy as np
import pytest
import torch

from inflate.data import DataReport, FrameCache, FrameEntry, is_test_name
from inflate.errors import InputError
from inflate.evaluate.things import find_things, middle, to_unit_range

SIZE = 4


def entry(name: str, kind: str, start: int, frames: int, caption: str | None = None) -> FrameEntry:
    return FrameEntry(
        name=name,
        caption=f"a {name}" if caption is None else caption,
        keywords=(),
        split="test" if is_test_name(name) else "train",
        kind=kind,
        start=start,
        num_frames=frames,
        timestamps=np.arange(frames) / 10,
        duration=frames / 10,
        loop=True,
    )


def cache_of(tmp_path: Path, *entries: FrameEntry) -> FrameCache:
    total = sum(item.num_frames for item in entries)
    # Frame i is the grey i, so that a test can tell frames apart.
    np.repeat(np.arange(total, dtype=np.uint8), SIZE * SIZE * 3).tofile(tmp_path / "frames.bin")
    return FrameCache(tmp_path, "the data", SIZE, entries, DataReport(len(entries)))


def test_one_still_and_one_clip_per_base_name(tmp_path: Path):
    things = find_things(
        cache_of(
            tmp_path,
            entry("1f44b", "still", 0, 1),
            entry("1f44b-1f3fd", "still", 1, 1),
            entry("1f44b-fe0f", "still", 2, 1),
            entry("2764", "still", 3, 1),
            entry("2764", "clip", 4, 10),
            entry("2b50", "still", 14, 1, caption=""),
        )
    )
    assert things.stills == {"1f44b": 0, "2764": 3}
    assert things.clips == {"2764": 4}
    assert things.caption("2764") == "a 2764"
    assert things.still_frames(["2764", "1f44b"])[:, 0, 0, 0].tolist() == [3, 0]


def test_splits_follow_the_entries(tmp_path: Path):
    names = [f"{number:x}" for number in range(0x1F600, 0x1F628)]
    things = find_things(cache_of(tmp_path, *(entry(name, "still", i, 1) for i, name in enumerate(names))))
    test = [name for name in names if is_test_name(name)]
    assert test and things.names("test") == test
    assert things.names("train") == [name for name in names if not is_test_name(name)]
    assert things.names("test", with_clip=True) == []


def test_a_clip_is_sampled_at_the_asked_frame_rate_and_wraps(tmp_path: Path):
    things = find_things(cache_of(tmp_path, entry("2764", "still", 0, 1), entry("2764", "clip", 1, 10)))
    shown = things.clip_frames("2764", fps=5.0, num_frames=7)[:, 0, 0, 0].tolist()
    assert shown == [1, 3, 5, 7, 9, 1, 3]
    clip = things.clip_of("2764", fps=5.0, num_frames=7)
    assert clip.shape == (1, 3, 7, SIZE, SIZE)
    assert clip[0, 0, :, 0, 0].tolist() == pytest.approx([value / 255 for value in shown])


def test_pictures_in_the_unit_range():
    pictures = to_unit_range(np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3))
    assert torch.equal(pictures.flatten(), torch.tensor([0.0, 0.2, 1.0]))
    assert middle(16) == 8


def test_data_without_captions_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="the data has no captions"):
        find_things(cache_of(tmp_path, entry("2764", "still", 0, 1, caption="")))
