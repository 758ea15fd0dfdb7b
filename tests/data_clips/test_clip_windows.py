"""Windows: where they lie, at what rate, what they show, and what is left out with which reason."""

import dataclasses
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inflate.data.clips import ClipOptions, open_clips
from inflate.data.clips.buckets import fit, nearest_size, sizes_for
from inflate.data.clips.placing import Shot, place_windows, shots_of, unit
from inflate.data.reading import PIXELS
from inflate.errors import InputError

WriteClip = Callable[..., Path]


def options(path: Path | str, **changes: Any) -> ClipOptions:
    return dataclasses.replace(ClipOptions(str(path), num_frames=8, size=(64,), workers=1, validation=0.0), **changes)


def spread(number: int) -> np.ndarray:
    """A ramp that moves by three pixels a frame: it changes little from frame to frame, and everywhere."""
    return np.roll(np.tile((np.arange(64) * 2 + 60).astype(np.uint8)[None, :, None], (64, 1, 3)), 3 * number, axis=1)


def step(number: int) -> np.ndarray:
    return np.full((64, 64, 3), 20 + 4 * number, np.uint8)


def test_frame_i_is_the_one_shown_at_start_plus_i_over_fps(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", step, 50, bf="3", g="10")
    clips = open_clips(options(tmp_path, fps=(6.0,), num_frames=5), 8)
    assert len(clips) == 2
    for number, window in enumerate(clips.windows):
        times = window.start + np.arange(5) / window.fps
        expected = np.floor(times * 24 + 1e-6)
        shown = np.round((clips.read(number).mean(axis=(1, 2, 3)) - 20) / 4)
        assert np.array_equal(shown, expected)
        assert np.array_equal(np.diff(shown), [4, 4, 4, 4]), "6 of 24 frames a second: every fourth"


def test_a_clip_is_never_sped_up_or_filled_up(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", step, 24, rate=12)
    clips = open_clips(options(tmp_path, fps=(30.0,)), 8)
    assert [round(window.fps, 2) for window in clips.windows] == [12.0] * len(clips.windows)
    for number in range(len(clips)):
        shown = np.round((clips.read(number).mean(axis=(1, 2, 3)) - 20) / 4)
        assert np.array_equal(np.diff(shown), np.ones(7)), "each frame once, none skipped"


def test_rates_are_drawn_log_uniformly_and_repeatably() -> None:
    shots = [Shot(0.0, 30.0, 60.0)]
    wanted = options("x", fps=(4.0, 16.0), clips_per_video=400)
    placed = place_windows("content", shots, wanted)
    rates = np.log2([window.fps for window in placed])
    assert 2 <= rates.min() and rates.max() <= 4
    # Log-uniform between 4 and 16: mean of log2 is 3, and a quarter lies in each quarter; 4 standard errors of 400.
    assert abs(rates.mean() - 3) < 4 * (2 / 12**0.5) / 20
    assert all(60 <= count <= 140 for count in np.histogram(rates, 4, (2, 4))[0])
    assert placed == place_windows("content", shots, wanted)
    assert placed != place_windows("other", shots, wanted)
    starts = np.array([window.start for window in placed])
    assert starts.min() >= 0 and (starts + 7 / 2.0**rates).max() < 30


@pytest.mark.parametrize("clips_per_video", [0, 3])
def test_no_window_leaves_its_shot_however_its_rate_is_drawn(clips_per_video: int) -> None:
    shots = [Shot(0.0, 1.0, 30.0), Shot(1.0, 3.5, 30.0)]
    wanted = options("x", fps=(2.0, 30.0), clips_per_video=clips_per_video)
    placed = [one for number in range(60) for one in place_windows(f"content {number}", shots, wanted)]
    assert {one.shot for one in placed} == {0, 1} and min(one.fps for one in placed if one.shot) < 5
    for one in placed:
        shot = shots[one.shot]
        assert shot.begin <= one.start and one.start + (wanted.num_frames - 1) / one.fps <= shot.end


def test_a_rate_rises_no_further_than_a_short_shot_needs() -> None:
    [window] = place_windows("content", [Shot(0.0, 1.0, 30.0)], options("x", fps=(2.0, 30.0)))[:1]
    assert 7 / window.fps < 1.0 and window.fps <= 30
    assert place_windows("content", [Shot(0.0, 1.0, 30.0)], options("x", fps=(4.0,))) == []


def test_windows_do_not_overlap_and_there_are_at_most_eight() -> None:
    few = place_windows("content", [Shot(0.0, 5.0, 24.0)], options("x"))
    assert len(few) == 5, "8 frames at 8 frames/s take a second"
    starts = [window.start for window in few]
    assert np.diff(starts).min() >= 1 - 1e-5
    many = place_windows("content", [Shot(0.0, 60.0, 24.0)], options("x"))
    assert len(many) == 8 and many[-1].start > 50, "spread over the whole"


def test_exactly_as_many_frames_as_wanted_fit() -> None:
    [window] = place_windows("content", [Shot(0.0, 8 / 24, 24.0)], options("x", fps=(24.0,)))
    assert window.start == pytest.approx(0.5 / 24, abs=1e-6)
    assert place_windows("content", [Shot(0.0, 7 / 24, 24.0)], options("x", fps=(24.0,))) == []


def test_the_usual_step_is_the_rate_of_a_shot() -> None:
    times = np.array([0.0, 0.033, 0.067, 0.1, 0.133, 0.167, 0.2])
    [shot] = shots_of(times, 0.233, [])
    assert shot.rate == pytest.approx(30, rel=1e-3), "times rounded to milliseconds"
    paused = np.concatenate([times, times + 5])
    assert shots_of(paused, 5.233, [])[0].rate == pytest.approx(30, rel=0.02)
    first, second = shots_of(paused, 5.233, [7])
    assert (first.begin, first.end, second.begin) == (0.0, 5.0, 5.0)


def test_no_window_spans_a_cut(write_clip: WriteClip, tmp_path: Path) -> None:
    colours = [(200, 60, 60), (60, 60, 200), (60, 200, 60)]
    cuts = [0, 31, 62, 96]

    def paint(number: int) -> np.ndarray:
        shot = sum(number >= cut for cut in cuts[1:])
        picture = np.full((64, 64, 3), colours[shot], np.uint8)
        left = 3 * number % 56
        picture[:, left : left + 8] = 255 - picture[0, 0]
        return picture

    write_clip(tmp_path / "a.mp4", paint, 96)
    clips = open_clips(options(tmp_path), 8)
    assert len(clips) == 3
    for number, window in enumerate(clips.windows):
        frames = clips.read(number)
        ground = np.median(frames.reshape(8, -1, 3), axis=1)
        assert np.abs(ground - ground[0]).max() < 6, f"window at {window.start} s shows two shots"
    across = open_clips(options(tmp_path, cut_threshold=0.0), 8)
    assert len(across) == 4, "without detection windows lie end to end"


def test_static_and_short_clips_are_left_out_by_name(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "moving.mp4")
    write_clip(tmp_path / "still.mp4", lambda _: step(3))
    write_clip(tmp_path / "short.mp4", count=6)
    write_clip(tmp_path / "one.mp4", count=1)
    (tmp_path / "notes.pdf").write_text("x")
    clips = open_clips(options(tmp_path), 8)
    report = clips.report
    assert {window.name for window in clips.windows} == {"moving"}
    reasons = {Path(name).name: reason for name, reason in report.skipped}
    assert reasons.keys() == {"still.mp4", "short.mp4", "one.mp4"}
    assert "hardly moves: 0.0000" in reasons["still.mp4"]
    assert "too short: 0.25 s at 24 frames/s" in reasons["short.mp4"]
    assert "1 frame" in reasons["one.mp4"]
    assert [Path(name).name for name, _ in report.ignored] == ["notes.pdf"]
    assert report.seen == 5 == report.used + len(report.skipped) + len(report.ignored)
    kept = open_clips(options(tmp_path, min_motion=0.0), 8)
    assert {window.name for window in kept.windows} == {"moving", "still"}


def test_motion_is_the_mean_difference_of_neighbouring_drawn_frames(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", step, 48, crf="1")
    # Every third frame is drawn, each 12 of 255 brighter.
    clips = open_clips(options(tmp_path, min_motion=0.045), 8)
    assert len(clips) == 2
    with pytest.raises(InputError, match=r"hardly moves: 0\.04"):
        open_clips(options(tmp_path, min_motion=0.049), 8)


def test_black_bars_are_cropped_and_dark_pictures_are_not(write_clip: WriteClip, tmp_path: Path) -> None:
    def boxed(number: int) -> np.ndarray:
        picture = np.zeros((96, 128, 3), np.uint8)
        picture[20:76] = np.tile(spread(number)[:56], (1, 2, 1))
        return picture

    def night(number: int) -> np.ndarray:
        picture = np.full((96, 128, 3), 4, np.uint8)
        picture[40:44, 60 + number % 8 : 64 + number % 8] = 250
        return picture

    write_clip(tmp_path / "boxed.mp4", boxed)
    write_clip(tmp_path / "night.mp4", night)
    clips = open_clips(options(tmp_path, min_motion=0.0, max_aspect=4.0), 8)
    sizes = {window.name: (window.height, window.width) for window in clips.windows}
    assert sizes["boxed"][1] / sizes["boxed"][0] > 2, "128 x 52 after cropping"
    first = clips.select()[0]
    assert clips.windows[first].name == "boxed" and clips.read(first).min() > 40
    assert sizes["night"] == nearest_size(sizes_for(options("x", max_aspect=4.0), 8), 128, 96)
    assert any("black bars cropped from 128x96" in reason for _, reason in clips.report.partly)
    whole = open_clips(options(tmp_path, min_motion=0.0, max_aspect=4.0, crop_letterbox=False), 8)
    assert whole.read(first).min() < 10


def test_pixels_that_are_not_square_choose_the_bucket_of_what_is_shown(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "pal.mp4", spread, aspect=Fraction(2, 1))
    clips = open_clips(options(tmp_path, aspect_buckets=True), 8)
    window = clips.windows[0]
    assert (window.height, window.width) == nearest_size(sizes_for(options("x"), 8), 2, 1) == (48, 80)
    # A sixth of the width is cropped; without the pixels' shape 80 x 48 would crop a quarter of the height instead.
    row = clips.read(0)[0, 24, :, 0].astype(int)
    assert np.median(np.diff(row)) == pytest.approx(2 * 64 * (80 / 96) / 80, abs=0.5)


def test_sizes_are_multiples_of_about_one_area() -> None:
    for multiple, side in ((8, 64), (16, 256), (64, 512)):
        sizes = sizes_for(options("x", size=(side,)), multiple)
        assert (side, side) in sizes and len(sizes) > 4
        for height, width in sizes:
            assert height % multiple == width % multiple == 0
            assert max(height / width, width / height) <= 2.0
            assert side * side * 0.6 <= height * width <= side * side
    assert sizes_for(options("x", size=(512,), aspect_buckets=False), 8) == [(512, 512)]
    assert sizes_for(options("x", size=(320, 576)), 64) == [(320, 576)]
    with pytest.raises(InputError, match=r"multiples of 64 pixels; use 448 or 512 in place of 500"):
        sizes_for(options("x", size=(500,)), 64)


def test_fit_crops_the_middle_and_averages_whole_reductions() -> None:
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, 4:12] = np.arange(8)[None, :, None] * 20
    small = fit(picture, (0, 0, 16, 8), 1.0, (4, 4))
    assert np.array_equal(small[0, :, 0], [10, 50, 90, 130]), "means of boxes of 2 x 2"
    same = fit(picture, (4, 0, 12, 8), 1.0, (8, 8))
    assert np.array_equal(same, picture[:, 4:12])


def test_validation_is_by_video_and_by_name(write_clip: WriteClip, tmp_path: Path) -> None:
    for number in range(10):
        write_clip(tmp_path / f"v{number}.mp4", lambda n, k=number: spread(n + 7 * k), 48)
    clips = open_clips(options(tmp_path, validation=0.3), 8)
    held_out = {window.name for window in clips.windows if window.split == "validation"}
    assert held_out == {f"v{number}" for number in range(10) if unit("validation", f"v{number}") < 0.3} != set()
    assert not held_out & {window.name for window in clips.windows if window.split == "train"}
    (tmp_path / "v3.mp4").unlink()
    fewer = open_clips(options(tmp_path, validation=0.3), 8)
    assert {window.name for window in fewer.windows if window.split == "validation"} == held_out - {"v3"}
    none = open_clips(options(tmp_path, validation=0.0), 8)
    assert {window.split for window in none.windows} == {"train"}


def test_one_video_of_two_is_held_out_and_equal_files_stay_together(write_clip: WriteClip, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4")
    write_clip(tmp_path / "b.mp4", spread)
    (tmp_path / "copy of a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    clips = open_clips(options(tmp_path, validation=0.01), 8)
    splits = {window.name: window.split for window in clips.windows}
    assert sorted({splits["a"], splits["b"]}) == ["train", "validation"]
    assert splits["a"] == splits["copy of a"]


def test_keys_name_pixels_and_not_files(write_clip: WriteClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "one" / "a.mp4")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "z.mp4").write_bytes((tmp_path / "one" / "a.mp4").read_bytes())
    (tmp_path / "two" / "z.txt").write_text("said")
    first, second = open_clips(options(tmp_path / "one"), 8), open_clips(options(tmp_path / "two"), 8)
    assert [w.key for w in first.windows] == [w.key for w in second.windows]
    assert first.fingerprint() != second.fingerprint(), "captions count there"
    other = open_clips(options(tmp_path / "one", size=(32,)), 8)
    assert not {w.key for w in first.windows} & {w.key for w in other.windows}
    assert len({w.key for w in first.windows}) == len(first)
    monkeypatch.setattr("inflate.data.clips.clips.PIXELS", PIXELS + 1)
    newer = open_clips(options(tmp_path / "one"), 8)
    assert not {w.key for w in first.windows} & {w.key for w in newer.windows}, "another reader's pixels are others"


def test_an_animation_that_repeats_runs_on(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(np.full((32, 32, 3), level, np.uint8)) for level in (100, 112, 124, 112)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, loop=0, lossless=True)
    clips = open_clips(options(tmp_path, fps=(10.0,), size=(32,)), 8)
    assert clips.read(0)[:, 0, 0, 0].tolist() == [100, 112, 124, 112] * 2
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, loop=1, lossless=True)
    with pytest.raises(InputError, match="too short"):
        open_clips(options(tmp_path, fps=(10.0,), size=(32,)), 8)


def test_pictures_are_clips_of_one_frame(write_clip: WriteClip, tmp_path: Path) -> None:
    from PIL import Image

    write_clip(tmp_path / "clips" / "a.mp4")
    (tmp_path / "stills").mkdir()
    Image.fromarray(np.full((40, 80, 3), 70, np.uint8)).save(tmp_path / "stills" / "x.png")
    (tmp_path / "stills" / "x.txt").write_text("a grey thing")
    (tmp_path / "stills" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    clips = open_clips(options(tmp_path / "clips", pictures=str(tmp_path / "stills")), 8)
    [number] = clips.select(kind="picture")
    window = clips.windows[number]
    assert (window.num_frames, window.caption, window.split) == (1, "a grey thing", "train")
    assert clips.read(number).shape == (1, window.height, window.width, 3)
    assert (clips.read(number) == 70).all() and window.width > window.height
    assert [Path(name).name for name, _ in clips.report.skipped] == ["broken.jpg"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": " "}, "data.path is empty"),
        ({"num_frames": 1}, "at least 2 frames"),
        ({"size": (64, 64, 64)}, "data.size"),
        ({"size": (0,)}, "data.size"),
        ({"fps": (8.0, 4.0)}, "data.fps"),
        ({"fps": (float("nan"),)}, "data.fps"),
        ({"fps": ()}, "data.fps"),
        ({"validation": 1.5}, "data.validation"),
        ({"min_motion": float("nan")}, "data.min_motion"),
        ({"workers": -1}, "data.workers"),
    ],
)
def test_wrong_options_are_one_sentence(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ClipOptions(**{"path": "x", **changes})


def test_a_missing_library_is_one_sentence(
    write_clip: WriteClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(InputError, match=r"scenedetect is needed.*inflate-video\[train\]"):
        open_clips(options(tmp_path), 8)


def test_of_two_sizes_as_similar_the_larger_is_taken() -> None:
    sizes = [(16, 32), (32, 64), (32, 32), (64, 32), (24, 48)]
    assert nearest_size(sizes, 200, 100) == nearest_size(sizes[::-1], 200, 100) == (32, 64)
    # Twice as wide and as wide as high are equally far from the square root of two in between.
    assert nearest_size([(32, 64), (64, 64)], 2**0.5, 1) == (64, 64)
