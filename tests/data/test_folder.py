"""What is listed, with which caption and split, in each layout."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from inflate.data import VideoReport, open_videos
from inflate.errors import InputError


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_plain_folder_gives_every_video_below_it_without_captions(tmp_path: Path) -> None:
    for name in ("b.MP4", "deep/er/a.webm", "c.mov", "d.gif", "e.webp", "notes.txt", ".hidden/x.mp4", ".y.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    source = open_videos(tmp_path)
    assert source.layout == "plain"
    assert [item.name for item in source.items] == ["b", "c", "d", "deep/er/a", "e"]
    assert {(item.split, item.caption, item.fit) for item in source.items} == {("train", "", "crop")}


def test_a_videofolder_gives_captions_and_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.mp4").write_bytes(b"?")
    rows = [{"file_name": "a.mp4", "text": "a dog", "loop": True}, {"file_name": "gone.mp4", "text": "a cat"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (tmp_path / "test" / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", "text": "a cow"}))
    source = open_videos(tmp_path)
    assert source.layout == "videofolder"
    assert {(i.name, i.split, i.caption, i.loop) for i in source.items} == {
        ("a", "train", "a dog", True),
        ("a", "test", "a cow", None),
    }
    assert len(source.skipped) == 1 and source.skipped[0][0].endswith("gone.mp4")


def test_shards_of_any_origin(tmp_path: Path) -> None:
    described = json.dumps({"caption": "a dog", "keywords": ["pet"]}).encode()
    write_tar(
        tmp_path / "train-0.tar", {"x/a.mp4": b"AAAA", "x/a.json": described, "b.txt": b" a cat\n", "b.webm": b"B"}
    )
    write_tar(tmp_path / "test-0.tar", {"c.webp": b"CC", "c.json": b"not json"})
    (tmp_path / "train-1.tar").write_bytes(b"this is no tar archive")
    source = open_videos(tmp_path)
    assert {(i.name, i.split, i.caption, i.keywords, i.read()) for i in source.items} == {
        ("x/a", "train", "a dog", ("pet",), b"AAAA"),
        ("b", "train", "a cat", (), b"B"),
        ("c", "test", "", (), b"CC"),
    }
    assert [Path(name).name for name, _ in source.skipped] == ["train-1.tar"]
    assert [item.read() for item in open_videos(tmp_path / "test-0.tar").items] == [b"CC"]


def test_the_label_of_a_file_in_a_shard_names_both(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"a.mp4": b"A"})
    assert open_videos(tmp_path).items[0].label == f"{tmp_path}/train-0.tar:a.mp4"


@pytest.mark.parametrize("line", ["not json", "[1]", '{"text": "no file"}'])
def test_a_bad_line_of_metadata(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"metadata\.jsonl line 1 is not"):
        open_videos(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        open_videos(tmp_path / "nothing")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video files"):
        open_videos(tmp_path)


def test_a_file_that_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"?")
    with pytest.raises(InputError, match=r"is a file; give a folder"):
        open_videos(tmp_path / "a.mp4")


def test_the_report_names_five_and_counts_the_rest() -> None:
    skipped = tuple((f"{i}.mp4", "no frames") for i in range(7))
    sentence = VideoReport(3, skipped).sentence()
    assert sentence.startswith("3 files used, 7 skipped: 0.mp4 (no frames); ") and sentence.endswith("and 2 more")
    assert "5.mp4" not in sentence
    assert VideoReport(3).sentence() == "3 files used, none skipped"
