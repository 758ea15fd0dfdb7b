"""``inflate prepare fluent-emoji`` from end to end, on packages of five tiny pictures made here."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoji_family.fluent_emoji import PACKAGES
from inflate.cli.app import main
from inflate.data import ClipSampler, build_frame_cache, decode_video, is_test_name

EMOJI = [
    {
        "hexcode": "1F44B",
        "label": "waving hand",
        "tags": ["hello"],
        "skins": [{"hexcode": "1F44B-1F3FD", "label": "waving hand: medium skin tone"}],
    },
    {"hexcode": "1F389", "label": "party popper", "tags": ["tada"]},
    {"hexcode": "1F30C", "label": "milky way", "tags": ["space"]},
    {"hexcode": "00AE", "label": "registered", "tags": ["r"]},
    {"hexcode": "0039-FE0F-20E3", "label": "keycap: 9", "tags": ["keycap"]},
]
CLIPS = {"@lobehub/fluent-emoji-anim-1": ["1f44b", "1f44b-1f3fd"], "@lobehub/fluent-emoji-anim-2": ["1f30c"]}
STILLS = ["1f44b", "1f44b-1f3fd", "1f389", "1f30c", "00ae-fe0f", "ae-fe0f", "0039-fe0f-20e3", "39-fe0f-20e3"]


def picture(level: int, height: int = 64) -> Image.Image:
    image = Image.new("RGBA", (64, height), (0, 0, 0, 0))
    image.paste((level, 0, 0, 255), (16, 16, 48, 48))
    return image


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The six packages, unpacked, with two base clips and five things."""
    home = tmp_path / "packages"
    for name, version in PACKAGES.items():
        folder = home / name.replace("/", "-")
        (folder / "assets").mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"name": name, "version": version}))
        for clip in CLIPS.get(name, []):
            pages = [picture(level) for level in (50, 100, 150, 200)]
            pages[0].save(
                folder / "assets" / f"{clip}.webp", save_all=True, append_images=pages[1:],
                duration=[42, 42, 84, 42], loop=0, lossless=True,
            )  # fmt: skip
    for still in STILLS:
        picture(120, 66 if still == "1f389" else 64).save(
            home / "@lobehub-fluent-emoji-3d" / "assets" / f"{still}.webp"
        )
    # A still in an animation package repeats the 3D one.
    picture(120).save(home / "@lobehub-fluent-emoji-anim-3" / "assets" / "1f389.webp")
    (home / "emojibase-data" / "en").mkdir()
    (home / "emojibase-data" / "en" / "data.json").write_text(json.dumps(EMOJI))
    return home


@pytest.fixture
def prepare(packages: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command into ``tmp_path/out`` with more arguments."""

    def run(*arguments: str) -> int:
        command = ["prepare", "fluent-emoji", str(tmp_path / "out"), "--from", str(packages), "--workers", "1"]
        return main([*command, *arguments])

    return run


def test_everything_is_written_and_can_be_trained_on(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert is_test_name("1f30c") and not is_test_name("1f44b")
    assert prepare("--quiet") == 0
    out = tmp_path / "out"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "NOTICE",
        "dataset.json",
        "shards/train-00000.tar",
        "shards/test-00000.tar",
        "videofolder/train/1f44b.mp4",
        "videofolder/train/metadata.jsonl",
        "videofolder/test/1f30c.mp4",
        "videofolder/test/metadata.jsonl",
        "stills/train/1f44b.webp",
        "stills/train/1f389.webp",
        "stills/train/00ae-fe0f.webp",
        "stills/train/metadata.jsonl",
        "stills/test/1f30c.webp",
        "stills/test/39-fe0f-20e3.webp",
        "stills/test/metadata.jsonl",
    }
    cache = build_frame_cache(out, 16)
    assert not cache.report.skipped
    said = {(e.name, e.kind, e.split, e.caption, e.keywords, e.num_frames) for e in cache.entries}
    assert said == {
        ("1f44b", "clip", "train", "waving hand", ("hello",), 4),
        ("1f30c", "clip", "test", "milky way", ("space",), 4),
        ("1f44b", "still", "train", "waving hand", ("hello",), 1),
        ("1f389", "still", "train", "party popper", ("tada",), 1),
        ("1f30c", "still", "test", "milky way", ("space",), 1),
        ("00ae-fe0f", "still", "train", "registered", ("r",), 1),
        ("39-fe0f-20e3", "still", "test", "keycap: 9", ("keycap",), 1),
    }
    clip = cache.entries[cache.select(kind="clip", split="train")[0]]
    assert clip.timestamps == pytest.approx([0, 0.042, 0.084, 0.168]) and clip.loop
    batch = ClipSampler(cache, 4, 10).batch(0, 2)
    assert {draw.name for draw in batch.draws} == {"1f44b"}
    assert (batch.frames[:, :, 0, 0] == 255).all()


def test_the_summary_counts_and_hashes(prepare: Callable[..., int], tmp_path: Path, capsys) -> None:
    assert prepare("--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert summary["counts"] == {
        "clips_train": 1, "clips_test": 1, "stills_train": 3, "stills_test": 2, "things": 5, "things_test": 2,
    }  # fmt: skip
    assert {row["package"]: row["version"] for row in summary["inputs"]} == PACKAGES
    assert all(len(row["sha256"]) == 64 for row in summary["inputs"])
    assert summary["without_caption"] == []


def test_the_notice_names_the_licences(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert prepare("--quiet") == 0
    notice = (tmp_path / "out" / "NOTICE").read_text()
    for words in ("Microsoft Corporation", "LobeHub", "Miles Johnson", "Unicode, Inc.", "Permission is hereby granted"):
        assert words in notice


def test_clips_keep_their_bytes_and_mp4_is_on_white(
    prepare: Callable[..., int], packages: Path, tmp_path: Path
) -> None:
    assert prepare("--quiet") == 0
    original = (packages / "@lobehub-fluent-emoji-anim-1" / "assets" / "1f44b.webp").read_bytes()
    assert original in (tmp_path / "out" / "shards" / "train-00000.tar").read_bytes()
    video = decode_video(tmp_path / "out" / "videofolder" / "train" / "1f44b.mp4")
    assert video.frames.shape == (5, 64, 64, 3)  # 210 ms at 24 frames a second
    assert np.abs(video.frames[:, 0, 0].astype(int) - 255).max() < 6


def test_skin_tones_are_added_on_request(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert prepare("--quiet", "--skin-tones", "--no-videofolder") == 0
    entries = build_frame_cache(tmp_path / "out", 16).entries
    toned = {(e.kind, e.caption, e.split) for e in entries if e.name == "1f44b-1f3fd"}
    assert toned == {(kind, "waving hand: medium skin tone", "train") for kind in ("clip", "still")}


def test_only_keeps_what_is_named_in_any_spelling(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert prepare("--quiet", "--only", "1F389, ae,1f44b-1f3fd", "--still-size", "16", "--no-videofolder") == 0
    out = tmp_path / "out"
    cache = build_frame_cache(out, 8)
    assert {(e.name, e.kind) for e in cache.entries} == {
        ("1f389", "still"),
        ("00ae-fe0f", "still"),
        ("1f44b-1f3fd", "clip"),
        ("1f44b-1f3fd", "still"),
    }
    with Image.open(out / "stills" / "train" / "1f389.webp") as image:
        assert image.size == (16, 16)
    assert not (out / "videofolder").exists()


def test_two_processes_write_the_same_videos(prepare: Callable[..., int], tmp_path: Path) -> None:
    videos = []
    for workers in ("1", "2"):
        assert prepare("--quiet", "--force", "--workers", workers) == 0
        videos.append((tmp_path / "out" / "videofolder" / "train" / "1f44b.mp4").read_bytes())
    assert videos[0] == videos[1]


def test_progress_and_the_summary_go_to_people(prepare: Callable[..., int], capsys) -> None:
    assert prepare("--only", "1f44b,1f30c") == 0
    printed = capsys.readouterr()
    assert "1 training clips and 1 test clips, 1 training stills and 1 test stills" in printed.out
    assert "without a caption: none" in printed.out
    assert "writing videos" in printed.err


def test_a_thing_without_a_caption_is_reported(prepare: Callable[..., int], packages: Path, capsys) -> None:
    (packages / "emojibase-data" / "en" / "data.json").write_text(json.dumps(EMOJI[1:]))
    assert prepare("--no-videofolder") == 0
    assert "without a caption: 1f44b" in capsys.readouterr().out


def refused(capsys, code: int, *words: str) -> None:
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error


def test_an_existing_folder_is_refused_and_kept(prepare: Callable[..., int], tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    refused(capsys, prepare("--quiet"), "exists", "--force")
    refused(capsys, prepare("--quiet", "--force"), "is not a data set of ours")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_force_replaces_a_prepared_data_set(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert prepare("--quiet", "--no-videofolder") == 0
    assert prepare("--quiet", "--no-videofolder", "--force", "--only", "1f389") == 0
    assert len(build_frame_cache(tmp_path / "out", 8)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "packages"]


def test_a_missing_package(prepare: Callable[..., int], packages: Path, tmp_path: Path, capsys) -> None:
    (packages / "emojibase-data" / "package.json").unlink()
    refused(capsys, prepare("--quiet"), "lacks the npm packages emojibase-data")
    assert not (tmp_path / "out").exists()


def test_no_npm_and_no_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["prepare", "fluent-emoji", str(tmp_path / "out"), "--quiet", "--npm-cache", str(tmp_path / "npm")]
    refused(capsys, main(command), "npm is not installed", "--from")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "1fffff"), "no emoji called 1fffff"),
        (("--only", " , "), "--only names no emoji"),
        (("--still-size", "4"), "--still-size is 4"),
    ],
)
def test_bad_options(
    prepare: Callable[..., int], tmp_path: Path, capsys, arguments: tuple[str, ...], words: str
) -> None:
    refused(capsys, prepare("--quiet", *arguments), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]


@pytest.mark.parametrize("keep", [0, 40, 120])
def test_a_broken_picture(prepare: Callable[..., int], packages: Path, tmp_path: Path, capsys, keep: int) -> None:
    path = packages / "@lobehub-fluent-emoji-anim-1" / "assets" / "1f44b.webp"
    path.write_bytes(path.read_bytes()[:keep])
    refused(capsys, prepare("--quiet"), "1f44b.webp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]


def test_a_full_disk_leaves_nothing(
    prepare: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emoji_family.fluent_emoji._write_stills", full)
    refused(capsys, prepare("--quiet"), "No space left on device", "nothing was kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]
