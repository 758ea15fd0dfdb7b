"""Every layout that data sets come in, with captions, splits, and an account of each file."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inflate.data.clips import ClipOptions, ClipSet, open_clips
from inflate.data.listing.packed import split_of_shard
from inflate.errors import InputError

WriteClip = Callable[..., Path]


@pytest.fixture
def videos(write_clip: WriteClip, tmp_path: Path) -> dict[str, Path]:
    """Three different short videos in a folder of their own."""

    def paint(base: int) -> Callable[[int], np.ndarray]:
        def at(number: int) -> np.ndarray:
            picture = np.full((32, 48, 3), base, np.uint8)
            picture[:, number % 40 : number % 40 + 8] = 240
            return picture

        return at

    return {
        name: write_clip(tmp_path / "videos" / f"{name}.mp4", paint(40 + 30 * i), 24) for i, name in enumerate("abc")
    }


def place(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def opened(path: Path, **changes: Any) -> ClipSet:
    facts = {"num_frames": 4, "size": (32,), "workers": 1, "validation": 0.3, **changes}
    return open_clips(ClipOptions(str(path), **facts), 8)


def captions(clips: ClipSet) -> dict[str, str]:
    return {window.name: window.caption for window in clips.windows}


def splits(clips: ClipSet) -> dict[str, str]:
    return {window.name: window.split for window in clips.windows}


def left(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {Path(name).name: reason for name, reason in pairs}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_captions_lie_beside_clips(videos: dict[str, Path], tmp_path: Path, encoding: str) -> None:
    root = tmp_path / "set"
    place(videos["a"], root / "deep" / "one.v2.mp4")
    place(videos["b"], root / "two.mp4")
    (root / "deep" / "one.v2.txt").write_bytes("Ein Café,\r\nzwei Stühle\r\n".encode(encoding))
    (root / "gone.txt").write_text("nobody")
    (root / ".hidden.mp4").write_text("x")
    clips = opened(root, caption="a clip")
    assert captions(clips) == {"deep/one.v2": "Ein Café, zwei Stühle", "two": "a clip"}
    assert "no video called gone" in left(clips.report.ignored)["gone.txt"]
    assert clips.report.seen == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_tables(videos: dict[str, Path], tmp_path: Path, kind: str, encoding: str) -> None:
    root = tmp_path / "set"
    for name in "abc":
        place(videos[name], root / f"{name}.mp4")
    rows = [("a.mp4", "first, with a comma"), ("b.mp4", "zweite — ü"), ("no.mp4", "nothing")]
    if kind == "jsonl":
        text = "\r\n".join(json.dumps({"file_name": f, "text": t}, ensure_ascii=False) for f, t in rows) + "\r\n\r\n"
        (root / "metadata.jsonl").write_bytes(text.encode(encoding))
    elif kind == "csv":
        text = "file_name,text\r\n" + "".join(f'{f},"{t}"\r\n' for f, t in rows)
        (root / "metadata.csv").write_bytes(text.encode(encoding))
    else:
        datasets = pytest.importorskip("datasets")
        columns = {"file_name": [f for f, _ in rows], "text": [t for _, t in rows]}
        datasets.Dataset.from_dict(columns).to_parquet(str(root / "metadata.parquet"))
    clips = opened(root)
    assert captions(clips) == {"a": "first, with a comma", "b": "zweite — ü"}
    assert left(clips.report.skipped) == {"no.mp4": f"metadata.{kind} row 3 names it but it is not there"}
    assert left(clips.report.ignored) == {"c.mp4": "the table of captions does not name it"}


def test_a_webvid_table(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "webvid"
    place(videos["a"], root / "videos" / "000001_000050" / "7700.mp4")
    place(videos["b"], root / "videos" / "7701.mp4")
    table = root / "results_2M_train.csv"
    table.write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        "7700,https://example.org/7700.mp4,PT00H00M01S,000001_000050,A bar moves\n"
        "7701,https://example.org/7701.mp4,PT00H00M01S,,Another bar\n"
        "7702,https://example.org/7702.mp4,PT00H00M01S,000051_000100,Removed by its owner\n"
    )
    for path in (root, table):
        clips = opened(path)
        assert sorted(captions(clips).values()) == ["A bar moves", "Another bar"]
        assert left(clips.report.skipped).keys() == {"7702.mp4"}
        assert "row 3" in left(clips.report.skipped)["7702.mp4"]


def test_a_musubi_table(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    place(videos["b"], root / "clips" / "b.mp4")
    rows = [
        {"video_path": str(videos["a"]), "caption": "elsewhere"},
        {"video_path": "clips\\b.mp4", "caption": "written on Windows"},
    ]
    (root / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions(opened(root / "set.jsonl")) == {"a": "elsewhere", "clips/b": "written on Windows"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metadata.csv", "a.mp4,a caption\nb.mp4,another\n", "names no video .its columns are a caption, a.mp4"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n{oops\n', "metadata.jsonl line 2"),
        ("metadata.parquet", "not parquet", "parquet"),
    ],
)
def test_tables_that_cannot_be_read_are_one_sentence(
    videos: dict[str, Path], tmp_path: Path, name: str, text: str, said: str
) -> None:
    root = tmp_path / "set"
    place(videos["a"], root / "a.mp4")
    (root / name).write_text(text)
    with pytest.raises(InputError, match=said) as error:
        opened(root)
    assert "\n" not in str(error.value)


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_webdataset_shards(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "shards"
    data = {name: path.read_bytes() for name, path in videos.items()}
    write_shard(
        root / "valley-walks-000.tar",
        {
            "x/0001.mp4": data["a"],
            "x/0001.json": json.dumps({"caption": ["in json", "second"]}).encode(),
            "0002.v2.mp4": data["b"],
            "0002.v2.txt": "text beside\r\n".encode("utf-16"),
            "0003.txt": b"alone",
        },
    )
    write_shard(root / "deeper" / "val-000.tar", {"0001.mp4": data["c"]})
    (root / "broken.tar").write_bytes(b"not a tar" * 100)
    clips = opened(root)
    assert captions(clips) == {"x/0001": "in json", "0002.v2": "text beside", "0001": ""}
    assert splits(clips) == {"x/0001": "train", "0002.v2": "train", "0001": "validation"}
    assert left(clips.report.skipped).keys() == {"broken.tar"}
    assert [reason for name, reason in clips.report.ignored if name.endswith("0003")] == ["no video among its members"]
    # A member is read where it lies, to the same pixels as the file it was made from.
    alone = opened(videos["b"].parent)
    same = next(n for n, w in enumerate(alone.windows) if w.name == "b")
    packed = next(n for n, w in enumerate(clips.windows) if w.name == "0002.v2")
    assert np.array_equal(clips.read(packed), alone.read(same))
    assert clips.windows[packed].key == alone.windows[same].key


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000.tar", "train"),
        ("val_0.tar", "validation"),
        ("validation.tar", "validation"),
        ("test000.tar", "test"),
        ("valley-walks-000.tar", ""),
        ("testimony.tar", ""),
        ("trains-1.tar", ""),
    ],
)
def test_splits_in_shards_names(name: str, split: str) -> None:
    assert split_of_shard(name) == split


@pytest.mark.parametrize("inside", [True, False])
def test_a_saved_data_set(videos: dict[str, Path], tmp_path: Path, inside: bool) -> None:
    datasets = pytest.importorskip("datasets")
    values = [
        {"bytes": path.read_bytes() if inside else None, "path": path.name if inside else str(path)}
        for path in videos.values()
    ]
    columns = {"video": values, "text": ["one", "two", "three"]}
    features = datasets.Features({"video": datasets.Video(decode=False), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict(columns, features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    clips = opened(tmp_path / "saved")
    assert captions(clips) == {"000000": "one", "000001": "two", "000002": "three"}
    plain = opened(videos["a"].parent)
    assert {window.key for window in clips.windows} == {window.key for window in plain.windows}
    assert np.array_equal(clips.read(0), plain.read(0))
    parts = datasets.DatasetDict({"train": table.select([0, 1]), "validation": table.select([2])})
    parts.save_to_disk(str(tmp_path / "dict"))
    assert splits(opened(tmp_path / "dict")) == {
        "train/000000": "train",
        "train/000001": "train",
        "validation/000000": "validation",
    }


def test_a_saved_data_set_without_videos(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"no column of videos \(its columns are text\)"):
        opened(tmp_path / "saved")


def test_folders_of_numbered_pictures(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "frames"
    for clip, shade in (("left", 60), ("right", 120)):
        (root / clip).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(np.full((40, 40, 3), shade + 4 * number, np.uint8)).save(root / clip / f"f{number}.png")
    (root / "left.txt").write_text("to the left")
    (root / "right" / "thumb.png").write_bytes((root / "right" / "f0.png").read_bytes())
    clips = opened(root, fps=(2.0, 8.0), clips_per_video=3)
    assert captions(clips) == {"left": "to the left", "right": ""}
    assert "single picture" in left(clips.report.ignored)["thumb.png"]
    for number, window in enumerate(clips.windows):
        assert 2 <= window.fps <= 8, "pictures are taken at the highest rate asked for"
        shade = 60 if window.name == "left" else 120
        shown = (clips.read(number)[:, 0, 0, 0].astype(int) - shade) // 4
        times = window.start + np.arange(4) / window.fps
        assert np.array_equal(shown, np.floor(times * 8 + 1e-6)), "10 follows 9, not 1"
    alone = opened(root / "left", num_frames=8)
    assert {window.name for window in alone.windows} == {"left"}


def test_splits_from_folders(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        place(videos[name], root / "data" / split / "label" / f"{name}.mp4")
    clips = opened(root)
    assert splits(clips) == {"data/train/label/a": "train", "data/val/label/b": "validation"}
    assert splits(opened(root, validation=0.0)) == {"data/train/label/a": "train"}
    assert "test split" in left(clips.report.ignored)["c.mp4"]
    shutil.rmtree(root / "data" / "train")
    shutil.rmtree(root / "data" / "val")
    only = opened(root, validation=0.0)
    assert splits(only) == {"data/test/label/c": "train"}
    assert "all videos lie in a split called test" in only.report.sentence()


def test_a_video_on_both_sides_is_not_trained_on(videos: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, name in (("train", "a"), ("train", "b"), ("val", "b")):
        place(videos[name], root / split / f"{name}.mp4")
    clips = opened(root)
    assert splits(clips) == {"train/a": "train", "val/b": "validation"}
    assert left(clips.report.ignored) == {"b.mp4": "the same video is in the validation split"}


def test_a_single_video_is_a_data_set(videos: dict[str, Path]) -> None:
    videos["a"].with_suffix(".txt").write_text("only one")
    clips = opened(videos["a"])
    assert captions(clips) == {"a": "only one"} and set(splits(clips).values()) == {"train"}


def test_nothing_to_train_on_is_one_sentence(videos: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no video files"):
        opened(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no"):
        opened(tmp_path / "nowhere")
    (tmp_path / "x.pdf").write_text("x")
    with pytest.raises(InputError, match="neither a video nor a table"):
        opened(tmp_path / "x.pdf")
    (tmp_path / "empty" / "metadata.csv").write_text("file_name,text\nabsent.mp4,x\n")
    with pytest.raises(InputError, match=r"none of them is there.*absent\.mp4"):
        opened(tmp_path / "empty")
