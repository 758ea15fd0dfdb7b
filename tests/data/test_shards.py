"""Shards and video folders say the same as what was put in, to our reader and to others'."""

import json
from pathlib import Path

import numpy as np
import pytest

from inflate.data import decode_video, open_videos
from inflate.data.shards import Sample, metadata_row, write_metadata, write_shards, write_videofolder_clip


@pytest.fixture
def samples(tmp_path: Path, write_webp) -> list[Sample]:
    made = []
    for number, split in enumerate(("train", "train", "test")):
        path = write_webp(tmp_path / f"file{number}.webp", [0, 100, 200], [50 + number, 100, 150])
        made.append(Sample(f"key{number}", path, split, {"caption": f"thing {number}", "loop": True}))
    return made


def test_shards_keep_the_bytes_and_the_captions(tmp_path: Path, samples: list[Sample]) -> None:
    shards = write_shards(samples, tmp_path / "shards")
    assert [shard.name for shard in shards] == ["train-00000.tar", "test-00000.tar"]
    found = {item.name: item for item in open_videos(tmp_path / "shards").items}
    for sample in samples:
        item = found[sample.key]
        assert item.footage.open().read() == sample.path.read_bytes()
        assert (item.split, item.caption, item.loop) == (sample.split, sample.metadata["caption"], True)


def test_a_new_shard_begins_when_one_is_full(tmp_path: Path, samples: list[Sample]) -> None:
    shards = write_shards(samples, tmp_path / "shards", max_bytes=1)
    assert [shard.name for shard in shards] == ["train-00000.tar", "train-00001.tar", "test-00000.tar"]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, samples: list[Sample]) -> None:
    one, two = (write_shards(samples, tmp_path / name) for name in ("one", "two"))
    assert [shard.read_bytes() for shard in one] == [shard.read_bytes() for shard in two]


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_our_shards(tmp_path: Path, samples: list[Sample]) -> None:
    webdataset = pytest.importorskip("webdataset")
    shard = write_shards(samples, tmp_path / "shards")[0]
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [row["__key__"] for row in read] == ["key0", "key1"]
    assert read[0]["webp"] == samples[0].path.read_bytes()
    assert json.loads(read[1]["json"])["caption"] == "thing 1"


def write_videofolder(samples: list[Sample], folder: Path) -> None:
    for split in {sample.split for sample in samples}:
        rows = [sample for sample in samples if sample.split == split]
        for sample in rows:
            write_videofolder_clip(sample, folder)
        write_metadata(folder / split, [metadata_row(sample, f"{sample.key}.mp4") for sample in rows])


def test_a_videofolder_shows_each_frame_at_its_time(tmp_path: Path, samples: list[Sample]) -> None:
    write_videofolder(samples, tmp_path / "folder")
    source = open_videos(tmp_path / "folder")
    assert source.layout == "tables" and not source.skipped
    assert {(i.name, i.split, i.caption, i.loop) for i in source.items} == {
        (f"{sample.split}/{sample.key}", sample.split, sample.metadata["caption"], True) for sample in samples
    }
    item = next(item for item in source.items if item.name == "train/key0")
    video = decode_video(item.footage)
    # 50, 100 and 150 ms at 24 frames a second: frames at 0, 42, 83, 125, 167, 208 and 250 ms
    assert len(video.frames) == 7
    levels = video.frames.mean((1, 2, 3))
    assert np.abs(levels - [0, 0, 100, 100, 200, 200, 200]).max() < 4


def test_metadata_is_what_hugging_face_datasets_expects(tmp_path: Path, samples: list[Sample]) -> None:
    write_videofolder(samples, tmp_path / "folder")
    rows = [json.loads(line) for line in (tmp_path / "folder" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert rows[0] == {"file_name": "key0.mp4", "text": "thing 0", "loop": True}
    assert all((tmp_path / "folder" / "train" / row["file_name"]).is_file() for row in rows)
