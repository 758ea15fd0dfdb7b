"""The frame cache: every frame once, in order, at one size; rebuilt when files change; honest about skipped ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from inflate.data import ClipSampler, FrameCache, build_frame_cache, decode_video
from inflate.data.clips import ClipOptions, open_clips
from inflate.data.kept import cache_folder
from inflate.data.reading import PIXELS
from inflate.errors import InputError
from inflate.train.pictures import open_data
from inflate.train.recipe import DataOptions
from tests.killed import Paused

SAMPLE = Path(__file__).parent / "emoji"


@pytest.fixture
def videos(tmp_path: Path, write_mp4, write_webp) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_mp4(folder / "wide.mp4", [10, 100, 200], [0, 40, 80], size=(96, 64))
    write_webp(folder / "loops.webp", [0, 80, 160, 240], [100, 50, 100, 50])
    write_webp(folder / "still.webp", [77], [0])
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mov").touch()
    whole = (folder / "wide.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def test_bad_files_are_skipped_counted_and_named(videos: Path) -> None:
    cache = build_frame_cache(videos, 16)
    assert [entry.name for entry in cache.entries] == ["loops", "still", "wide"]
    assert cache.report.used == 3
    assert sorted(Path(name).name for name, _ in cache.report.skipped) == ["empty.mov", "half.mp4", "text.mp4"]
    assert all(reason for _, reason in cache.report.skipped)


def test_rows_are_the_decoded_frames_in_order(videos: Path) -> None:
    cache = build_frame_cache(videos, 16)
    assert cache.frames.shape == (8, 16, 16, 3) and cache.frames.dtype == np.uint8
    for number, entry in enumerate(cache.entries):
        path = next(videos.glob(f"{entry.name}.*"))
        video = decode_video(path, 16)
        assert np.array_equal(cache.clip_frames(number), video.frames)
        assert entry.timestamps == pytest.approx(video.timestamps, abs=1e-6)
        assert (entry.duration, entry.loop) == (pytest.approx(video.duration), video.loop)
    assert [(e.kind, e.num_frames, e.start) for e in cache.entries] == [("clip", 4, 0), ("still", 1, 4), ("clip", 3, 5)]
    assert cache.select(kind="clip") == [0, 2] and cache.select(split="test") == []
    assert not cache.frames.flags.writeable


def test_the_second_call_opens_what_the_first_built(videos: Path) -> None:
    first = build_frame_cache(videos, 16)
    calls = []
    second = build_frame_cache(videos, 16, progress=lambda done, total: calls.append(done))
    assert not calls and second.folder == first.folder
    assert np.array_equal(first.frames, second.frames)


def test_a_changed_file_is_seen(videos: Path, write_webp) -> None:
    before = build_frame_cache(videos, 16)
    assert before.clip_frames(1)[0, 0, 0, 0] == 77
    write_webp(videos / "still.webp", [99], [0])
    os.utime(videos / "still.webp", ns=(1, 1))
    assert build_frame_cache(videos, 16).clip_frames(1)[0, 0, 0, 0] == 99


def test_frames_of_an_older_reader_are_read_anew(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_frame_cache(videos, 16)
    monkeypatch.setattr("inflate.data.frames.PIXELS", PIXELS + 1)
    calls = []
    build_frame_cache(videos, 16, progress=lambda done, total: calls.append(done))
    assert calls


def test_two_processes_build_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    caches = [build_frame_cache(videos, 16, tmp_path / f"cache{workers}", workers) for workers in (1, 2)]
    one, two = ((cache.folder / "frames.bin").read_bytes() for cache in caches)
    assert one == two
    assert (caches[0].folder / "index.json").read_text() == (caches[1].folder / "index.json").read_text()


def test_a_changed_caption_is_seen(videos: Path) -> None:
    assert {entry.caption for entry in build_frame_cache(videos, 16).entries} == {""}
    (videos / "loops.txt").write_text("a loop")
    assert {entry.name: entry.caption for entry in build_frame_cache(videos, 16).entries}["loops"] == "a loop"


_BUILDING = """
from pathlib import Path
from inflate.data import frames
write = frames._write_cache
def slow(*arguments):
    write(*arguments)
    pause()
frames._write_cache = slow
frames.build_frame_cache(sys.argv[1], 16)
"""


def test_of_two_processes_one_builds_and_the_other_waits(videos: Path) -> None:
    told: list[str] = []
    built: list[int] = []
    with Paused(_BUILDING, videos) as first:

        def tell(sentence: str) -> None:
            told.append(sentence)
            first.go_on()

        cache = build_frame_cache(videos, 16, progress=lambda done, total: built.append(done), tell=tell)
        assert first.process.wait() == 0
    [sentence] = told
    assert sentence.startswith(f"Process {first.pid} on ") and sentence.endswith("frames-16; waiting for it.")
    assert not built and len(cache) == 3
    assert {path.name for path in (videos / ".inflate-cache").iterdir()} == {".gitignore", "frames-16"}


def test_what_a_killed_build_left_is_removed_by_the_next(videos: Path) -> None:
    with Paused(_BUILDING, videos) as first:
        first.process.kill()
        first.process.wait()
    home = videos / ".inflate-cache"
    assert (home / ".frames-16.inflate-partial" / "frames.bin").is_file() and not (home / "frames-16").exists()
    told: list[str] = []
    assert len(build_frame_cache(videos, 16, tell=told.append)) == 3 and not told
    assert {path.name for path in home.iterdir()} == {".gitignore", "frames-16"}


def test_nothing_is_left_behind_when_no_file_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "text.mp4").write_text("not a video")
    with pytest.raises(InputError, match=r"no file in .* could be used \(1 files seen: 0 used; 1 skipped: .*text\.mp4"):
        build_frame_cache(folder, 16, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_full_disk_leaves_nothing(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inflate.data.frames._row", full)
    with pytest.raises(InputError, match="No space left on device"):
        build_frame_cache(videos, 16, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == [videos]


def test_a_folder_that_is_no_cache_is_not_replaced(videos: Path) -> None:
    with pytest.raises(InputError, match="is not a frame cache"):
        build_frame_cache(videos, 16, videos)
    assert (videos / "wide.mp4").is_file()


def test_a_short_frame_file_is_noticed(videos: Path) -> None:
    cache = build_frame_cache(videos, 16)
    content = (cache.folder / "frames.bin").read_bytes()
    (cache.folder / "frames.bin").write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"has {len(content) - 1} bytes, not {len(content)}"):
        FrameCache.open(cache.folder)


@pytest.mark.parametrize("index", ["", "{}", "[]", json.dumps({"format": "other"})])
def test_a_bad_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(InputError, match="is not a frame cache"):
        FrameCache.open(tmp_path)


def test_a_size_below_one_pixel(videos: Path) -> None:
    with pytest.raises(InputError, match="frame size is 0"):
        build_frame_cache(videos, 0)


def test_the_sample_is_a_prepared_data_set_ready_for_training(tmp_path: Path) -> None:
    cache = build_frame_cache(SAMPLE, 32, tmp_path / "cache")
    assert not cache.report.skipped
    clips, stills = cache.select(kind="clip"), cache.select(kind="still")
    assert len(clips) >= 12 and len(stills) >= 40
    assert cache.select("clip", "train") and cache.select("clip", "test")
    assert all(entry.caption for entry in cache.entries)
    assert all(cache.entries[clip].loop for clip in clips)
    batch = ClipSampler(cache, 16, 10).batch(0, 2)
    assert batch.frames.shape == (2, 16, 32, 32, 3)
    moving = np.abs(np.diff(batch.frames.astype(int), axis=1)).mean()
    assert moving > 0.1


def test_the_sample_keeps_the_split_the_notice_and_the_limit() -> None:
    from inflate.data import is_test_name, open_videos

    for item in open_videos(SAMPLE).items:
        assert (item.split == "test") is is_test_name(item.name)
    assert "Copyright (c) Microsoft Corporation" in (SAMPLE / "NOTICE").read_text()
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 5_000_000


def below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("by", ["variable", "recipe"])
def test_data_that_may_only_be_read_is_left_as_it_is(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Decoded frames, scans and reports go to the folder that INFLATE_CACHE or data.cache names."""
    before, elsewhere = below(videos), tmp_path / "elsewhere"
    cache = str(elsewhere) if by == "recipe" else ""
    if by == "variable":
        monkeypatch.setenv("INFLATE_CACHE", str(elsewhere))
    frames = open_data(DataOptions(str(videos), 16, cache=cache))
    options = ClipOptions(
        str(videos), num_frames=2, size=(32,), workers=1, cut_threshold=0, validation=0.0, min_motion=0, cache=cache
    )
    assert open_clips(options, 8).windows
    assert below(videos) == before
    assert frames.folder.is_relative_to(elsewhere) and options.cache_folder.is_relative_to(elsewhere)
    assert open_data(DataOptions(str(videos), 16, cache=cache)).folder == frames.folder


def test_caches_of_two_folders_of_one_name_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLATE_CACHE", str(tmp_path / "all"))
    assert cache_folder(tmp_path / "a" / "clips") != cache_folder(tmp_path / "b" / "clips")
    assert cache_folder(tmp_path / "a" / "clips") == cache_folder(tmp_path / "a" / ".." / "a" / "clips")


def test_where_nothing_can_be_written_the_ways_to_name_another_folder_are_told(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLATE_CACHE", "/proc/nowhere")
    with pytest.raises(InputError, match=r"cannot write .*--cache, data\.cache or the variable INFLATE_CACHE"):
        build_frame_cache(videos, 16)
