"""What a recipe of pictures and clips is given, and what it says about it."""

from pathlib import Path

import pytest
from PIL import Image

from inflate.errors import InputError
from inflate.train.pictures import PictureSampler, open_data
from inflate.train.recipe import DataOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train/a [1]", "train/b", "test/c"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (9, 9, 9)).save(path)
    (tmp_path / "set" / "train" / "b.txt").write_text("bee")
    (tmp_path / "set" / "train" / "bad [x].mp4").write_text("no video")
    return tmp_path / "set"


def test_what_became_of_every_file_is_printed_each_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # built, then opened
        cache = open_data(DataOptions(str(folder), size=8))
        said = capsys.readouterr().err
        assert "4 files seen: 3 used (1 stills for testing, 2 stills for training); 1 skipped" in said
        assert "bad [x].mp4" in said and "WARNING" not in said
        assert {entry.name: entry.split for entry in cache.entries}["test/c"] == "test"


@pytest.mark.parametrize(("split", "told"), [("train", "1 of 2 entries have no caption"), ("test", "1 of 1 entries")])
def test_empty_captions_are_counted_where_they_are_trained_on(
    folder: Path, capsys: pytest.CaptureFixture[str], split: str, told: str
) -> None:
    open_data(DataOptions(str(folder), size=8, split=split), captions=True)
    assert f"WARNING: {told}" in capsys.readouterr().err


def test_what_is_held_out_is_not_trained_on_in_silence(folder: Path) -> None:
    (folder / "train").rename(folder / "val")
    with pytest.raises(InputError, match=r"nothing in its train split.* all of it is 'test'"):
        open_data(DataOptions(str(folder), size=8))


@pytest.mark.parametrize(("split", "names"), [("train", {"train/a [1]", "train/b"}), ("test", {"test/c"})])
def test_pictures_are_drawn_from_their_split_alone(folder: Path, split: str, names: set[str]) -> None:
    options = DataOptions(str(folder), size=8, split=split)
    cache = open_data(options)
    sampler = PictureSampler(cache, options, seed=0)
    drawn = [int(entry) for update in range(20) for entry in sampler.draw(update, 0, 3)[0]]
    assert {cache.entries[entry].name for entry in drawn} == names
