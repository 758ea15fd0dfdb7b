"""Drawing windows, reading them ahead, and the scans kept between runs."""

import json
import os
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inflate.data.clips import ClipOptions, ClipSampler, ClipSet, PrefetchedClips, Window, draw_windows, open_clips
from inflate.data.clips import cache as cache_module
from inflate.data.reading import frames as frames_module
from inflate.errors import InputError

WriteClip = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]


def window(number: int, height: int = 64, kind: Any = "clip") -> Window:
    frames = 1 if kind == "picture" else 8
    return Window(f"k{number}", f"v{number}", "", "train", 0.0, 8.0, frames, height, 64, kind)


WINDOWS = [window(n, 64 if n < 9 else 48) for n in range(14)] + [window(n, kind="picture") for n in range(14, 20)]


def shape(index: int) -> tuple:
    one = WINDOWS[index]
    return one.height, one.width, one.num_frames, one.kind


def test_an_update_draws_from_one_bucket_whatever_its_batches() -> None:
    for update in range(50):
        whole = draw_windows(WINDOWS, 7, update, 0, 4)
        parts = [draw_windows(WINDOWS, 7, update, first, 1)[0] for first in range(4)]
        assert whole == parts, "4 x 1 and 1 x 4"
        assert len({shape(index) for index in whole}) == 1
        assert len(set(whole)) == 4, "no window twice while others wait"
    assert len({shape(draw_windows(WINDOWS, 7, update, 0, 1)[0]) for update in range(50)}) == 3
    assert [draw_windows(WINDOWS, 8, u, 0, 4) for u in range(9)] != [
        draw_windows(WINDOWS, 7, u, 0, 4) for u in range(9)
    ]


def test_every_window_is_equally_likely() -> None:
    sampler = ClipSampler(WINDOWS, 0)
    drawn = Counter(index for update in range(5000) for index in sampler.draw(update, 0, 4))
    expected = 20_000 / len(WINDOWS)
    # Windows of a bucket come and go together: the bucket's own draw has the larger spread, sqrt(5000 p (1 - p)).
    assert all(abs(drawn[index] - expected) < 5 * 50 for index in range(len(WINDOWS)))
    # The chance of the buckets themselves: 9, 5 and 6 of 20 windows; five standard deviations of 5000 draws.
    buckets = Counter(shape(sampler.draw(update, 0, 1)[0]) for update in range(5000))
    for bucket, count in Counter(map(shape, range(len(WINDOWS)))).items():
        p = count / 20
        assert abs(buckets[bucket] - 5000 * p) < 5 * (5000 * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(("processes", "batch"), [(1, 12), (2, 6), (3, 4), (4, 3), (6, 1)])
def test_each_window_of_an_epoch_is_drawn_once_whoever_draws_it(processes: int, batch: int) -> None:
    """Batches of a process lie apart by all processes' batches, as the training loop asks for them."""
    parts = 12 // (processes * batch)
    samplers = [ClipSampler(WINDOWS, 5, 12) for _ in range(processes)]
    drawn: dict[tuple, list[int]] = {}
    for update in range(60):
        for part in range(parts):
            for rank, sampler in enumerate(samplers):
                found = sampler.draw(update, (part * processes + rank) * batch, batch)
                drawn.setdefault(shape(found[0]), []).extend(found)
    for bucket, numbers in drawn.items():
        size = sum(shape(number) == bucket for number in range(len(WINDOWS)))
        epochs = [numbers[place : place + size] for place in range(0, len(numbers) - size + 1, size)]
        assert len(epochs) > 3 and all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1, "each in another order"
    # One that begins late, as a run that goes on does, draws what those did that were there all along.
    assert ClipSampler(WINDOWS, 5, 12).draw(50, 3, 5) == samplers[0].draw(50, 3, 5)
    assert sum(map(len, drawn.values())) == 720


def test_a_small_bucket_starts_again() -> None:
    assert Counter(draw_windows([window(0), window(1), window(2)], 0, 3, 0, 6)) == {0: 2, 1: 2, 2: 2}


def test_nothing_to_draw_from() -> None:
    with pytest.raises(InputError, match="no clips to draw from"):
        draw_windows([], 0, 0, 0, 1)


@pytest.fixture
def clips(write_clip: WriteClip, tmp_path: Path) -> ClipSet:
    for number in range(3):
        write_clip(tmp_path / "set" / f"v{number}.mp4", count=48)
    return open_clips(options(tmp_path), 8)


def options(tmp_path: Path, **changes: Any) -> ClipOptions:
    facts = {"num_frames": 8, "size": (32,), "workers": 1, "validation": 0.3, **changes}
    return ClipOptions(str(tmp_path / "set"), **facts)


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_read_ahead_are_those_drawn(clips: ClipSet, workers: int) -> None:
    training = clips.select("train")
    with_indices = [clips.windows[index] for index in training]
    ahead = PrefetchedClips(clips, seed=3, batch_size=2, micro_batches=2, workers=workers)
    try:
        # In order, then back to an earlier place as after a resumption, from a place between two batches on, then a
        # count of another size.
        for update, first in ((0, 0), (0, 2), (1, 0), (1, 2), (0, 2), (1, 0), (0, 1), (0, 3), (1, 1)):
            batch = ahead.batch(update, first)
            expected = [training[n] for n in draw_windows(with_indices, 3, update, first, 2)]
            assert list(batch.indices) == expected and (batch.update, batch.first) == (update, first)
            assert np.array_equal(batch.frames.numpy(), np.stack([clips.read(index) for index in expected]))
        assert ahead.batch(1, 1, 3).frames.shape[0] == 3
    finally:
        ahead.close()


def test_reading_ahead_for_one_of_several_processes_never_begins_again(
    clips: ClipSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = clips.select("train")
    sampler = ClipSampler([clips.windows[index] for index in training], 3, 4)
    ahead = PrefetchedClips(clips, 3, 1, micro_batches=2, workers=1, processes=2, in_order=True)
    begun, close = [], ahead.close
    monkeypatch.setattr(ahead, "close", lambda: (begun.append(1), close())[1])
    try:
        for update, first in ((0, 1), (0, 3), (1, 1), (1, 3), (2, 1)):  # the second of two processes
            expected = [training[number] for number in sampler.draw(update, first, 1)]
            assert list(ahead.batch(update, first).indices) == expected
        assert len(begun) == 1
    finally:
        close()


def test_a_file_that_vanished_is_one_sentence_out_of_a_worker(clips: ClipSet, tmp_path: Path) -> None:
    for path in (tmp_path / "set").glob("*.mp4"):
        path.unlink()
    ahead = PrefetchedClips(clips, seed=0, batch_size=1, workers=1)
    try:
        with pytest.raises(InputError, match=r"cannot read .*v\d\.mp4"):
            ahead.batch(0)
    finally:
        ahead.close()


def test_a_second_start_decodes_nothing(
    clips: ClipSet, tmp_path: Path, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []
    real = cache_module.scan_one

    def counting(footage: Any, *rest: Any) -> Any:
        scanned.append(footage.path.name)
        return real(footage, *rest)

    monkeypatch.setattr(cache_module, "scan_one", counting)
    again = open_clips(options(tmp_path), 8)
    assert scanned == [] and again.windows == clips.windows and again.fingerprint() == clips.fingerprint()
    # What is applied to a scan needs no new one.
    open_clips(options(tmp_path, size=(64,), min_motion=0.0, caption="x", validation=0.0), 8)
    assert scanned == []
    # A file that changed, and only that one, is scanned again.
    write_clip(tmp_path / "set" / "v1.mp4", count=60)
    open_clips(options(tmp_path), 8)
    assert scanned == ["v1.mp4"]
    scanned.clear()
    os.utime(tmp_path / "set" / "v2.mp4", ns=(1, 1))
    open_clips(options(tmp_path), 8)
    assert scanned == ["v2.mp4"]
    scanned.clear()
    open_clips(options(tmp_path, num_frames=6), 8)
    assert sorted(scanned) == ["v0.mp4", "v1.mp4", "v2.mp4"]


def test_a_scan_that_was_killed_goes_on(clips: ClipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [kept] = (tmp_path / "set" / ".inflate-cache").glob("scans-*.jsonl")
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text(lines[0] + lines[1][: len(lines[1]) // 2])
    scanned = []
    real = cache_module.scan_one
    monkeypatch.setattr(cache_module, "scan_one", lambda f, *rest: (scanned.append(f.path.name), real(f, *rest))[1])
    again = open_clips(options(tmp_path), 8)
    assert len(scanned) == 2 and again.windows == clips.windows
    scanned.clear()
    open_clips(options(tmp_path), 8)
    assert scanned == [], "the half line was replaced"


def test_scans_by_many_processes_are_those_of_one(clips: ClipSet, tmp_path: Path, write_clip: WriteClip) -> None:
    write_clip(tmp_path / "set" / "bad.mp4").write_bytes(b"x")
    seen: list[tuple[int, int]] = []
    one = open_clips(options(tmp_path, cache=str(tmp_path / "one")), 8)
    two = open_clips(options(tmp_path, cache=str(tmp_path / "two"), workers=2), 8, lambda *done: seen.append(done))
    assert one.windows == two.windows and one.report == two.report
    assert seen == [(n, 4) for n in range(1, 5)]


def test_the_report_is_written_beside_the_cache(clips: ClipSet, tmp_path: Path) -> None:
    folder = tmp_path / "set" / ".inflate-cache"
    assert json.loads((folder / "report.json").read_text()) == clips.report.to_json()
    assert (folder / ".gitignore").read_text() == "*\n"
    elsewhere = open_clips(options(tmp_path, cache=str(tmp_path / "set" / "kept")), 8)
    assert elsewhere.report.seen == 3, "a cache among the videos is not listed"
    again = open_clips(options(tmp_path, cache=str(tmp_path / "set" / "kept")), 8)
    assert again.report == elsewhere.report


def test_a_cache_that_cannot_be_written_is_one_sentence(clips: ClipSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write .*file.*data\.cache"):
        open_clips(options(tmp_path, cache=str(tmp_path / "file" / "cache")), 8)


def test_memory_follows_neither_number_nor_length(
    write_clip: WriteClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are alive at once while scanning and reading, and arrays that a finished scan keeps."""
    alive: set[int] = set()
    most = [0]
    real = frames_module._Painter.shown

    def counted(*arguments: Any) -> Any:
        shown = real(*arguments)
        alive.add(id(shown))
        weakref.finalize(shown, alive.discard, id(shown))
        most[0] = max(most[0], len(alive))
        return shown

    monkeypatch.setattr(frames_module._Painter, "shown", counted)
    most_alive = []
    for count, length in ((1, 24), (1, 480), (12, 24)):
        root = tmp_path / f"set{count}x{length}" / "set"
        for number in range(count):
            write_clip(root / f"{number}.mp4", count=length, bf="0")
        most[0] = 0
        clips = open_clips(options(root.parent), 8)
        clips.read(0)
        most_alive.append(most[0])
        assert not any(isinstance(v, np.ndarray) for v in vars(clips).values())
    assert max(most_alive) == most_alive[0] <= 3


def test_a_link_to_a_folder_above_is_followed_once(clips: ClipSet, tmp_path: Path) -> None:
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set" / "inside").mkdir()
    (tmp_path / "set" / "inside" / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    assert open_clips(options(tmp_path), 8).windows == clips.windows


def test_a_worker_that_was_ended_is_one_sentence(
    clips: ClipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(cache_module, "_scan_all", ended)
    with pytest.raises(InputError, match=r"want of memory; lower data\.workers"):
        open_clips(options(tmp_path, num_frames=5), 8)
