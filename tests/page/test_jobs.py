"""A job tells what happens, stops when asked, and turns every failure into a sentence."""

import json
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inflate.cascade import Cascade, Progress
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.errors import InputError
from inflate.page.files import Request, before_and_after, write_all, write_preview
from inflate.page.jobs import Job, Made, Models, Preview, Status
from inflate.stages import CancelledError
from tests.cascade.test_applications import Doubling, RecordingInterpolation
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    stages = (*tiny_cascade().stages, RecordingInterpolation(), Doubling())
    return Cascade(stages, device="cpu", keep_loaded=True)


def test_events_rise_show_each_stage_and_end_with_the_video(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inflate.page.jobs._STATUS_SECONDS", 0.0)
    events = list(Job(lambda options: cascade("sun", 4, 6, frame_skip=1, **options)).events())
    fractions = [event.fraction for event in events if isinstance(event, Status)]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    previews = [event for event in events if isinstance(event, Preview)]
    assert [preview.stage for preview in previews] == ["decoder", "interpolation", "super_resolution"]
    assert [preview.frames.shape[1] for preview in previews] == [16, 16, 32]
    made = events[-1]
    assert isinstance(made, Made) and made.frames.shape == (4, 32, 32, 3) and made.fps == 6
    assert np.abs(made.frames.astype(int) - previews[-1].frames).max() <= 1


def test_time_left_follows_from_the_share_done() -> None:
    job = Job(lambda options: None)  # pyright: ignore[reportArgumentType]
    job._start = time.monotonic() - 10
    status = job._status(0.25, "x")
    assert status.left == pytest.approx(30, abs=0.5) and job._status(0.0, "x").left is None


def test_a_slow_job_still_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inflate.page.jobs._POLL_SECONDS", 0.01)
    monkeypatch.setattr("inflate.page.jobs._STATUS_SECONDS", 0.0)
    gate = threading.Event()

    def make(options: dict[str, Any]) -> Any:
        gate.wait(5)
        raise InputError("enough")

    seen = 0
    with pytest.raises(InputError, match="enough"):
        for _ in Job(make).events():
            seen += 1
            if seen == 5:
                gate.set()
    assert seen >= 5


def test_quick_steps_do_not_pile_up_before_a_slow_page() -> None:
    told = threading.Event()

    def make(options: dict[str, Any]) -> Any:
        on_step = options["callback_on_step_end"]
        for step in range(500):
            progress = Progress("decoder", 0, 1, 0, 1, step, 500, (step + 1) / 500)
            if on_step(None, step, None, {"progress": progress}) is False:
                raise CancelledError("cancelled")
        told.set()
        time.sleep(1)
        raise CancelledError("cancelled")

    job, seen = Job(make), 0
    with pytest.raises(CancelledError):
        for _ in job.events():
            seen += 1
            time.sleep(0.1)
            if told.is_set():
                job.cancel()
    assert seen <= 12, "the page sees the news, not the history"


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_cancelled_or_abandoned_job_stops_its_thread(cascade: Cascade, how: str) -> None:
    steps: list[str] = []

    def make(options: dict[str, Any]) -> Any:
        on_step = options["callback_on_step_end"]

        def counting(*arguments: Any) -> Any:
            steps.append(arguments[3]["progress"].stage)
            time.sleep(0.01)
            return on_step(*arguments)

        slowed: dict[str, Any] = options | {"callback_on_step_end": counting}
        return cascade("sun", 4, num_inference_steps=40, **slowed)

    job = Job(make)
    events = job.events()
    next(events)
    if how == "cancel":
        job.cancel()
        with pytest.raises(CancelledError):
            list(events)
    else:
        events.close()
    time.sleep(0.1)
    count = len(steps)
    time.sleep(0.2)
    assert len(steps) == count < 40


def test_an_unforeseen_failure_is_one_sentence_and_the_traceback_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    def make(options: dict[str, Any]) -> Any:
        raise KeyError("inner detail")

    with pytest.raises(RuntimeError, match="Something went wrong on the server"):
        list(Job(make).events())
    assert "inner detail" in capsys.readouterr().err


def test_models_are_opened_once_and_bad_ones_refused(tmp_path: Path) -> None:
    models = Models("cpu")
    folder = str(save_tiny_family(tmp_path / "tiny", tiny_unet()))
    assert models.get(folder) is models.get(folder)
    with pytest.raises(InputError, match="There is no folder"):
        models.get(str(tmp_path / "none"))


def test_the_settings_make_the_same_video_again(tmp_path: Path) -> None:
    folder = str(save_tiny_family(tmp_path / "tiny", tiny_unet()))
    cascade = Models("cpu").get(folder)
    import torch

    generator = torch.Generator().manual_seed(5)
    options: dict[str, Any] = {"generator": generator, "guidance_scale": {"decoder": 1.5}}
    made = list(Job(lambda more: cascade("red sun", 4, 6.0, **options, **more)).events())[-1]
    assert isinstance(made, Made)
    request = Request("generate", ("red sun",), folder, 5, {"frames": 4, "fps": 6.0, "guidance_scale": "decoder=1.5"})
    written = write_all(made.frames, made.fps, request, tmp_path)
    settings = json.loads(Path(written.settings).read_text())
    assert settings["frames_made"] == 4 and settings["seed"] == 5 and settings["inputs"] == ["red sun"]
    words = shlex.split(settings["command_line"])[1:]
    words[words.index("-o") + 1] = str(tmp_path / "again.mp4")
    assert main([*words, "--quiet", "--no-sheet", "--device", "cpu"]) == 0
    assert np.array_equal(decode_video(tmp_path / "again.mp4").frames, decode_video(written.mp4).frames)
    assert len(written.all()) == 4 and all(Path(path).stat().st_size for path in written.all())
    assert decode_video(written.gif).frames.shape == decode_video(written.webp).frames.shape == (4, 16, 16, 3)


def test_previews_are_large_enough_to_see_and_the_slider_compares_equal_sizes(tmp_path: Path) -> None:
    low = np.stack([np.full((16, 16, 3), 100 * index, np.uint8) for index in range(3)])
    high = np.full((9, 64, 64, 3), 255, np.uint8)
    assert decode_video(write_preview(low, 8, tmp_path)).frames.shape == (3, 192, 192, 3)
    before, after = before_and_after(low, high)
    assert before.size == after.size == (64, 64)
    assert before.getpixel((5, 5)) == (100, 100, 100) and after.getpixel((5, 5)) == (255, 255, 255)
