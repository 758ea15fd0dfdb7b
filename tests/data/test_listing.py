"""What is listed, with which caption and split, in each layout; and what became of every other file."""

import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inflate.data import DataReport, Listing, build_frame_cache, open_videos
from inflate.data.clips import ClipOptions, open_clips
from inflate.errors import InputError

PREPARED = Path(__file__).parent / "emoji"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tar(**members: bytes) -> bytes:
    """A tar whose members are called so, with ``_DOT_`` for a dot and ``_IN_`` for a slash."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_DOT_", ".").replace("_IN_", "/"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def rows(*said: tuple[str, str], columns: str = "file_name,text") -> str:
    return "\n".join([columns, *(f"{name},{text}" for name, text in said)]) + "\n"


@dataclass(frozen=True)
class Case:
    """A folder's files, and what is to be found in it: captions by name, names held out, what is left out and why."""

    files: dict[str, str | bytes]
    captions: dict[str, str]
    held_out: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


V = b"?"  # nothing is decoded by a listing
CASES = {
    "suffixes": Case(
        {f"{suffix}.{suffix}": V for suffix in "mts m2ts ts mpg 3gp wmv flv ogv avif MP4 mov webm gif webp".split()}
        | {"notes.md": "x", ".hidden.mp4": V, ".deep/x.mp4": V},
        dict.fromkeys("mts m2ts ts mpg 3gp wmv flv ogv avif MP4 mov webm gif webp".split(), ""),
        ignored={"notes.md": "not a video"},
    ),
    "captions beside": Case(
        {
            **{f"{name}.mp4": V for name in "abcd"},
            "a.txt": "one\r\n two",
            "b.mp4.txt": b"\xef\xbb\xbfbom",
            "c.TXT": "sixteen".encode("utf-16"),
            "d.txt": " \n",
            "e.txt": "nobody",
        },
        {"a": "one two", "b": "bom", "c": "sixteen", "d": ""},
        ignored={"e.txt": "no video called e"},
    ),
    "a csv": Case(
        {"a.mp4": V, "b.mp4": V, "c.mp4": V, "metadata.csv": rows(("a.mp4", "first"), ("gone.mp4", "second"))},
        {"a": "first"},
        skipped={"gone.mp4": "row 2 names it but it is not there"},
        ignored={"b.mp4": "does not name it", "c.mp4": "does not name it"},
    ),
    "a caption beside, where the table has none": Case(
        {"a.mp4": V, "b.mp4": V, "a.txt": "beside", "metadata.csv": rows(("a.mp4", ""), ("b.mp4", "in it"))},
        {"a": "beside", "b": "in it"},
    ),
    "captions as lists, under other names": Case(
        {
            **{f"{name}.mp4": V for name in "abcd"},
            "metadata.jsonl": "\n".join(
                [
                    json.dumps({"file_name": "a.mp4", "captions": ["first", "second"]}),
                    json.dumps({"file_name": "b.mp4", "prompt": "prompt"}),
                    json.dumps({"file_name": "c.mp4", "caption": ["", "later"]}),
                    json.dumps({"file_name": "d.mp4", "text": None, "name": "thing"}),
                ]
            ),
        },
        {"a": "first", "b": "prompt", "c": "later", "thing": ""},
    ),
    "backslashes and UTF-16": Case(
        {"sub/a.mp4": V, "metadata.csv": rows(("sub\\a.mp4", "über")).encode("utf-16")},
        {"sub/a": "über"},
    ),
    "a table of folders of pictures": Case(
        {**{f"f/{n}.png": V for n in range(3)}, "metadata.csv": rows(("f", "frames"))},
        {"f": "frames"},
    ),
    "splits by folders, at any depth": Case(
        {f"data/{split}/deep/{split}.mp4": V for split in ("train", "val", "test", "Valid", "testing", "other")},
        {f"data/{split}/deep/{split}": "" for split in ("train", "val", "test", "Valid", "testing", "other")},
        held_out=tuple(f"data/{split}/deep/{split}" for split in ("val", "test", "Valid", "testing")),
    ),
    "splits by tables' folders, and by a column": Case(
        {
            "train/a.mp4": V,
            "train/metadata.jsonl": '{"file_name": "a.mp4", "text": "t"}\n',
            "test/a.mp4": V,
            "test/metadata.jsonl": '{"file_name": "a.mp4", "text": "h"}\n',
            "more/b.mp4": V,
            "more/metadata.csv": "file_name,text,split\nb.mp4,b,validation\n",
        },
        {"train/a": "t", "test/a": "h", "more/b": "b"},
        held_out=("test/a", "more/b"),
    ),
    "folders of frames": Case(
        {
            **{f"{clip}/f_{n}.png": V for clip in ("left", "right.v2") for n in (9, 10, 11)},
            "left.txt": "to the left",
            "right.v2/caption.txt": "to the right",
            "lone/1.png": V,
            "README.txt": "x",
            "README/x.md": "x",
        },
        {"left": "to the left", "right.v2": "to the right", "lone/1": ""},
        ignored={"README.txt": "no video called README", "x.md": "not a video"},
    ),
    "frames with numbers missing": Case(
        {
            **{f"gap/f_{n}.png": V for n in (1, 2, 3, 4, 8, 9, 10, 12)},
            **{f"tens/{n:03d}.png": V for n in (0, 10, 20, 40, 50)},
            **{f"times/{n}.png": V for n in (0, 33, 67, 100)},
            "gap/caption.txt": "once",
        },
        {"gap 1-4": "once", "gap 8-10": "once", "tens 0-20": "", "tens 40-50": "", "times": ""},
        ignored={"f_12.png": "a frame alone between missing numbers"},
        notes=("gap: numbers 5-7, 11 are missing; it is cut there", "tens: numbers 30 are missing"),
    ),
    "a table of frames with numbers missing": Case(
        {**{f"f/{n}.png": V for n in (1, 2, 5, 6, 7)}, "metadata.csv": rows(("f", "frames"))},
        {"f 1-2": "frames", "f 5-7": "frames"},
        notes=("f: numbers 3-4 are missing; it is cut there",),
    ),
    "a table of parts of videos": Case(
        {
            "a.mp4": V,
            "b.mp4": V,
            "metadata.csv": "file_name,text,start,end\na.mp4,part,0,0.5\nb.mp4,whole,,\n",
        },
        {"a": "part", "b": "whole"},
        notes=("metadata.csv says parts of videos in 1 of 2 rows (end, start); they are not used",),
    ),
    "two kinds of frames of one name": Case(
        {f"f/{n}.{suffix}": V for n in range(2) for suffix in ("png", "jpg")}, {"f": ""}
    ),
    "thumbnails beside videos": Case({"001.mp4": V, "001.png": V, "002.png": V}, {"001": "", "002": ""}),
    "shards": Case(
        {
            "valley-walks-000.tar": tar(a_DOT_mp4=V, a_DOT_json=b'{"prompt": "valley"}', README=b"x"),
            "val-000.tar": tar(b_DOT_mp4=V, b_DOT_txt="brow".encode("utf-16")),
            "nested/test_1.tar": tar(c_DOT_webm=V, c_DOT_json=b"not json", c_DOT_caption=b"see"),
            "eval/x.tar": tar(d_DOT_mp4=V),
            "mixed.tar": tar(train_IN_e_DOT_mp4=V, test_IN_f_DOT_mp4=V, g_DOT_txt=b"alone"),
            "loose.mp4": V,
            "loose.txt": "beside",
            "broken.tar": b"no archive" * 99,
            "packed.tar.gz": b"x",
        },
        {"a": "valley", "b": "brow", "c": "see", "d": "", "train/e": "", "test/f": "", "loose": "beside"},
        held_out=("b", "c", "d", "test/f"),
        skipped={"broken.tar": "not a readable tar archive"},
        ignored={
            "valley-walks-000.tar:README": "not a video",
            "mixed.tar:g": "no video among its members",
            "packed.tar.gz": "compressed",
        },
    ),
    "dotted names in shards": Case(
        {
            "x.tar": tar(
                clip_DOT_v1_DOT_mp4=V,
                clip_DOT_v2_DOT_mp4=V,
                clip_DOT_v2_DOT_txt=b"two",
                clip_DOT_v1_DOT_json=b'{"caption": "one"}',
                clip_DOT_v1_DOT_jpg=V,
            )
        },
        {"clip.v1": "one", "clip.v2": "two"},
        ignored={"x.tar:clip.v1.jpg": "a picture beside the one or the video"},
    ),
    "every member of a shard": Case(
        {
            "x.tar": tar(a_DOT_mp4=V, a_DOT_MP4=V, a_DOT_txt=b"last", a_DOT_npy=V),
            "y.tar": tar(b_DOT_000_DOT_jpg=V, b_DOT_001_DOT_jpg=V, b_DOT_txt=b"dots", c_DOT_png=V),
        },
        {"a": "last", "b.000": "dots", "c": ""},
        ignored={
            "x.tar:a.mp4": "a later member of that name",
            "x.tar:a.npy": "not a video",
            "y.tar:b.001.jpg": "numbered frames are read from folders",
        },
    ),
    "two lists": Case(
        {
            "videos.txt": "clips/a.mp4\r\nclips\\b.mp4\nclips/gone.mp4\n\n",
            "prompt.txt": "\ufeffone  cat\n\nnothing\n",
            **{f"clips/{name}.mp4": V for name in "abc"},
        },
        {"clips/a": "one cat", "clips/b": ""},
        skipped={"gone.mp4": "videos.txt row 3 names it but it is not there"},
        ignored={"c.mp4": "does not name it"},
    ),
    "two lists of other names": Case(
        {"videos.txt": "a.mp4\nb.mp4\n", "captions.txt": "one\ntwo", "a.mp4": V, "b.mp4": V}, {"a": "one", "b": "two"}
    ),
    "a list alone": Case(
        {"videos.txt": "a.mp4\n", "a.mp4": V, "b.txt": "x"},
        {"a": ""},
        ignored={"videos.txt": "a list of videos, but none of prompts", "b.txt": "no video called b"},
    ),
    "shards beside a table": Case(
        {"x.tar": tar(a_DOT_mp4=V), "b.mp4": V, "c.mp4": V, "metadata.csv": rows(("b.mp4", "bee"))},
        {"a": "", "b": "bee"},
        ignored={"c.mp4": "does not name it"},
    ),
}


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def left(pairs: list[tuple[str, str]]) -> dict[str, str]:
    return {Path(name).name: reason for name, reason in pairs}


def named(listing: Listing) -> set[str]:
    """Every file that the listing says anything of."""
    listed = {
        path
        for item in listing.items
        for path in ([item.footage.path / name for name in item.footage.pictures] or [item.footage.path])
    }
    return {str(path) for path in listed} | {name for name, _ in (*listing.skipped, *listing.ignored)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_a_folder_gives(tmp_path: Path, case: Case) -> None:
    root = write(tmp_path / "set", case.files)
    listing = open_videos(root)
    assert {item.name: item.caption for item in listing.items} == case.captions
    assert {item.name for item in listing.items if item.split == "test"} == set(case.held_out)
    for found, wanted in ((left(listing.skipped), case.skipped), (left(listing.ignored), case.ignored)):
        assert found.keys() == wanted.keys()
        assert all(reason in found[name] for name, reason in wanted.items())
    assert len(listing.notes) == len(case.notes)
    assert all(wanted in note for wanted, note in zip(case.notes, listing.notes, strict=True))
    # What is neither listed nor left out was read: a caption, a table, a shard.
    visible = {str(root / name) for name in case.files if not name.startswith(".")}
    read = {Path(name).suffix.lower() for name in visible - named(listing)}
    assert read <= {".txt", ".csv", ".jsonl", ".tar"}


def test_two_lists_of_unequal_length(tmp_path: Path) -> None:
    root = write(tmp_path, {"videos.txt": "a.mp4\nb.mp4\n", "prompts.txt": "one\n", "a.mp4": V, "b.mp4": V})
    for given in (root, root / "videos.txt"):
        with pytest.raises(
            InputError, match=r"videos\.txt has 2 lines and prompts\.txt has 1; the two go together line"
        ):
            open_videos(given)
    (root / "prompts.txt").write_text("one\ntwo\n")
    assert [item.caption for item in open_videos(root / "videos.txt").items] == ["one", "two"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_single_pictures_only_where_they_are_asked_for(tmp_path: Path, suffix: str) -> None:
    files = {"a.mp4": V, f"b{suffix}": V, "b.txt": "bee", "x.tar": tar(**{f"c_DOT_{suffix[1:]}": V})}
    root = write(tmp_path / "set", files)
    assert [(i.name, i.kind, i.caption) for i in open_videos(root).items] == [
        ("a", "clip", ""),
        ("b", "still", "bee"),
        ("c", "still", ""),
    ]
    without = open_videos(root, stills=False)
    assert [item.name for item in without.items] == ["a"]
    assert "a single picture" in left(without.ignored)[f"b{suffix}"]
    assert "a single picture" in left(without.ignored)["x.tar:c"]


def test_frames_in_a_shard_are_told_where_stills_are_not_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"a.mp4": V, "x.tar": tar(b_DOT_0_DOT_jpg=V, b_DOT_1_DOT_jpg=V)})
    without = open_videos(root, stills=False)
    assert "2 pictures and no video; numbered frames" in left(without.ignored)["x.tar:b"]


def test_a_member_of_a_shard_is_read_where_it_lies(tmp_path: Path) -> None:
    described = json.dumps({"caption": "a dog", "keywords": ["pet"], "loop": False}).encode()
    shard = write_tar(tmp_path / "train-0.tar", {"./x/a.mp4": b"AAAA", "x/a.json": described, "._b.mp4": b"mac"})
    for path in (tmp_path, shard):
        (item,) = open_videos(path).items
        assert (item.name, item.keywords, item.loop, item.split) == ("x/a", ("pet",), False, "train")
        assert item.footage.open().read() == b"AAAA"
        assert item.footage.label == f"{shard}:./x/a.mp4"


def test_a_prepared_data_set_gives_its_shards_and_its_stills() -> None:
    with_stills, without = open_videos(PREPARED), open_videos(PREPARED, stills=False)
    assert with_stills.layout == "prepared"
    clips = [item.name for item in with_stills.items if item.kind == "clip"]
    assert clips == [item.name for item in without.items]
    assert {item.fit for item in with_stills.items} == {"pad"}
    stills = [path for path in PREPARED.rglob("*.webp")]
    assert len(with_stills.items) == len(clips) + len(stills)
    assert {Path(name).name for name, _ in with_stills.ignored} == {"NOTICE", "dataset.json"}
    assert sum(name.endswith(".webp") for name, _ in without.ignored) == len(stills)


@pytest.mark.parametrize("line", ["not json", "[1]", '{"text": "no file"}'])
def test_a_bad_line_of_metadata(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"metadata\.jsonl (line 1 is no JSON object|row 1 names no video)"):
        open_videos(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        open_videos(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no video files"):
        open_videos(tmp_path)
    (tmp_path / "a.pdf").write_bytes(b"?")
    with pytest.raises(InputError, match="neither a video nor a table"):
        open_videos(tmp_path / "a.pdf")


@pytest.mark.parametrize(("folder", "warned"), [("test", True), ("Val", True), ("train", False), ("testimony", False)])
def test_a_folder_that_is_itself_called_test_is_named(tmp_path: Path, folder: str, warned: bool) -> None:
    root = write(tmp_path / folder, {"a.mp4": V})
    for path in (root, root / "a.mp4"):
        assert any("WARNING" in note and folder in note for note in open_videos(path).notes) is warned


def test_both_users_account_for_every_file_in_words_and_in_json(tmp_path: Path, write_mp4) -> None:
    root = tmp_path / "set"
    for number, name in enumerate(("train/a", "train/b", "test/c")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_mp4(root / f"{name}.mp4", [20 * (i + number) for i in range(8)], [125 * i for i in range(8)])
    for number in range(8):
        (root / "frames").mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 30 * number, np.uint8)).save(root / "frames" / f"{number}.png")
    write(root, {"train/a.txt": "a caption", "notes.md": "x", "bad.mp4": "not a video"})
    cache = build_frame_cache(root, 16)
    clips = open_clips(ClipOptions(str(root), num_frames=4, size=(32,), workers=1, cut_threshold=0, validation=0.0), 8)
    said = root / ".inflate-cache"
    for report, path in ((cache.report, said / "frames-16" / "report.json"), (clips.report, said / "report.json")):
        written = json.loads(path.read_text())
        assert written["seen"] == 6 == written["used"] + len(written["skipped"]) + len(written["ignored"])
        assert [Path(name).name for name, _ in written["skipped"]] == ["bad.mp4"]
        assert "6 files seen" in report.sentence() and "bad.mp4" in report.sentence()
    assert {entry.name: entry.split for entry in cache.entries} == {
        "frames": "train",
        "test/c": "test",
        "train/a": "train",
        "train/b": "train",
    }
    assert {Path(name).name for name, _ in cache.report.ignored} == {"notes.md"}
    assert {Path(name).name for name, _ in clips.report.ignored} == {"notes.md", "c.mp4"}


def test_the_report_names_five_and_counts_the_rest() -> None:
    skipped = tuple((f"{i}.mp4", "no frames") for i in range(7))
    sentence = DataReport(3, skipped).sentence()
    assert sentence.startswith("10 files seen: 3 used; 7 skipped: 0.mp4 (no frames), ") and "and 2 more" in sentence
    assert "5.mp4" not in sentence
    assert DataReport(3).sentence() == "3 files seen: 3 used; 0 skipped; 0 ignored"


def test_one_cut_file_or_a_name_in_an_old_encoding_ends_nothing(tmp_path: Path, write_mp4) -> None:
    """Names that are not UTF-8, in folders and in shards, and gifs cut at any byte are skipped and listed."""
    root, old = tmp_path / "set", os.fsdecode(b"caf\xe9")
    root.mkdir()
    for name in ("good.mp4", "told.mp4"):
        write_mp4(root / name, [20 * i for i in range(8)], [125 * i for i in range(8)])
    try:
        write(root, {f"{old}.mp4": (root / "good.mp4").read_bytes(), f"{old}/in.mp4": V})
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    write_tar(root / "x.tar", {f"{old}.mp4": V})
    (root / "told.txt").write_bytes(b"plain")
    first, *others = (Image.effect_noise((16, 16), 80 + number).convert("P") for number in range(4))
    first.save(root / "moving.gif", save_all=True, append_images=others)
    whole = (root / "moving.gif").read_bytes()
    (root / "moving.gif").unlink()
    cuts = {f"cut{size}.gif" for size in range(1, len(whole) - 400, 97)}
    for name in cuts:
        (root / name).write_bytes(whole[: int(name[3:-4])])
    told = {str(root / "caf\\udce9.mp4"), str(root / "caf\\udce9/in.mp4"), str(root / "x.tar:caf\\udce9.mp4")}
    cache = build_frame_cache(root, 16)
    clips = open_clips(ClipOptions(str(root), num_frames=4, size=(32,), workers=1, cut_threshold=0, validation=0.0), 8)
    for report in (cache.report, clips.report):
        assert report.used >= 2 and told <= {name for name, _ in report.skipped}
        assert all("UTF-8" in reason for name, reason in report.skipped if name in told)
        report.dumps().encode()
    assert cuts & {Path(name).name for name, _ in cache.report.skipped} == cuts, "of each a frame is missing"


def test_a_caption_that_no_file_can_hold_is_written_out(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"a.mp4": V, "metadata.jsonl": '{"file_name": "a.mp4", "text": "smile \\ud83d"}\n'})
    [item] = open_videos(root).items
    assert item.caption == "smile \\ud83d"
