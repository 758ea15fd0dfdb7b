"""A job tells what happens, stops when asked, and turns every failure into a sentence."""

import json
import shlex
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inflate.cascade import Cascade, Progress
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.data.writing import write_video
from inflate.errors import InputError
from inflate.page import wishes
from inflate.page.estimate import Paces
from inflate.page.files import write_all, write_comparison, write_preview
from inflate.page.jobs import Job, Models, Result
from inflate.page.making import work_for
from inflate.page.wishes import Settings, Wish
from tests.cascade.test_applications import Doubling, RecordingInterpolation
from tests.models.tiny_family import save_tiny_family, tiny_cascade, tiny_unet, tiny_video_unet
from tests.page.gates import Gated

PLAIN = Settings(fps=6.0, num_frames=4, frame_skip=1, guidance_scale=1.5, seed=5)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    stages = (*tiny_cascade().stages, RecordingInterpolation(), Doubling())
    return Cascade(stages, device="cpu", keep_loaded=True)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_family(tmp_path_factory.mktemp("family") / "tiny", tiny_video_unet()))


class Telling(Job):
    """Remembers what was told, and which previews there were."""

    def __init__(self, *arguments: Any) -> None:
        self.told: list[float] = []
        self.previews: list[str] = []
        super().__init__(*arguments)

    def tell(self, line: str, fraction: float) -> None:
        super().tell(line, fraction)
        self.told.append(self.status().fraction)
        if self.preview and self.preview not in self.previews:
            self.previews.append(self.preview)


def run(wish: Wish, cascade: Cascade, folder: Path, paces: Paces | None = None) -> Telling:
    job = Telling("kind", wish.title, work_for(wish, cascade, folder), paces or Paces())
    job.run()
    return job


def result_of(job: Job) -> Result:
    assert job.phase == "done" and job.result is not None, job.wrong
    return job.result


def test_progress_rises_over_all_parts_and_each_stage_is_shown_but_the_last(cascade: Cascade, tmp_path: Path) -> None:
    job = run(wishes.generate(cascade, "tiny", "sun", PLAIN), cascade, tmp_path)
    result = result_of(job)
    assert job.told == sorted(job.told) and job.told[0] == 0 and 0.9 < job.told[-1] < 1 and job.status().fraction == 1
    assert {0.03 < share < 0.9 for share in job.told} == {True, False}, "there is a share for reading and for writing"
    assert [decode_video(path).frames.shape[1] for path in job.previews] == [192, 192]  # 16 px, enlarged to be seen
    assert decode_video(result.written.mp4).frames.shape == (4, 32, 32, 3) and result.num_frames == 4
    assert result.compared is not None and result.seed == 5 and job.status().left is None


def test_a_failure_is_a_sentence_and_one_unforeseen_is_logged_too(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(job: Job) -> Result:
        raise InputError("Give another picture.")

    def broken(job: Job) -> Result:
        raise KeyError("inner detail")

    told = Job("kind", "x", wrong, Paces())
    told.run()
    assert (told.phase, told.wrong, told.over) == ("failed", "Give another picture.", True)
    assert capsys.readouterr().err == ""
    failed = Job("kind", "x", broken, Paces())
    failed.run()
    assert failed.phase == "failed" and failed.wrong.startswith("Something went wrong on the server")
    assert "inner detail" in capsys.readouterr().err


def test_cancelling_ends_a_job_in_the_middle_of_a_network(tmp_path: Path) -> None:
    stage = Gated()
    cascade = Cascade((*tiny_cascade().stages, stage), device="cpu", keep_loaded=True)
    wish = wishes.generate(cascade, "tiny", "sun", Settings(6.0, 2, 2, 1.0, 0))
    job = Job("kind", "sun", work_for(wish, cascade, tmp_path), Paces())
    stage.gate.shut()
    thread = threading.Thread(target=job.run)
    thread.start()
    assert stage.gate.reached.wait(60)
    job.cancel()
    assert not job.over, "a layer that runs is not stopped"
    stage.gate.open()
    thread.join(60)
    assert job.phase == "cancelled" and job.over and stage.calls == 0
    assert result_of(run(wish, cascade, tmp_path)).num_frames == 2, "the next one works at once"
    assert stage.calls == stage.layers


def test_a_result_says_what_of_the_upload_is_not_in_it(cascade: Cascade, tmp_path: Path) -> None:
    frames = np.zeros((2, 16, 300, 4), np.uint8)
    path = write_video(tmp_path / "wide.webp", frames, 10)
    made = result_of(run(wishes.upscale(cascade, "t", str(path), "super-resolution", None, PLAIN), cascade, tmp_path))
    assert made.left_out.startswith("Not kept from wide.webp: its transparency. Made of at most 120 frames of 256 px")
    plain = write_video(tmp_path / "plain.mp4", frames[..., :16, :3], 10)
    made = result_of(run(wishes.vary(cascade, "t", str(plain), PLAIN), cascade, tmp_path))
    assert made.left_out == ""


class Watched(Doubling):
    """Notes how many of its frames there are at the most while it makes the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Any]] = []
        self.most = 0

    def stream(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        for chunk in super().stream(*arguments, **options):
            self.most = max(self.most, sum(one() is not None for one in self.made))
            self.made.append(weakref.ref(chunk))
            yield chunk


def test_an_enlarged_video_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mp4", np.random.default_rng(0).integers(0, 99, (30, 16, 16, 3), np.uint8), 10)
    stage = Watched()
    cascade = Cascade((*tiny_cascade().stages, stage), device="cpu", keep_loaded=True)
    made = result_of(run(wishes.upscale(cascade, "t", str(path), "super-resolution", None, PLAIN), cascade, tmp_path))
    assert len(stage.made) == made.num_frames == 30 and stage.most <= 2
    for suffix in ("mp4", "gif", "webp"):
        assert decode_video(getattr(made.written, suffix)).frames.shape == (30, 32, 32, 3)


def test_cancelling_ends_a_job_that_reads_or_writes(cascade: Cascade, tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mp4", np.zeros((20, 16, 16, 3), np.uint8), 10)
    wish = wishes.upscale(cascade, "tiny", str(path), "super-resolution", None, PLAIN)
    for part in ("reading and loading", "writing files"):

        class Stopped(Telling):
            def tell(self, line: str, fraction: float, part: str = part) -> None:
                super().tell(line, fraction)
                if line == part:
                    self.cancel()

        folder = tmp_path / part
        folder.mkdir()
        job = Stopped("kind", "x", work_for(wish, cascade, folder), Paces())
        job.run()
        assert job.phase == "cancelled"
        assert not [file for file in folder.rglob("inflate.*")], "no file was finished"


def test_a_step_says_where_it_is() -> None:
    job = Job("kind", "x", lambda job: pytest.fail("it does not run"), Paces())
    cascade: Any = None
    for fraction, line in ((0.5, "key frames (D): step 3 of 15"), (1.0, "own: step 3 of 15")):
        stage = "decoder" if fraction < 1 else "own"
        job.on_step(cascade, 2, None, {"progress": Progress(stage, 1, 5, 0, 1, 2, 15, fraction)})
        assert job.status().line == line and job.status().fraction == pytest.approx(0.03 + 0.87 * fraction)


def test_models_are_opened_once_and_bad_ones_refused(tmp_path: Path) -> None:
    models = Models("cpu")
    folder = str(save_tiny_family(tmp_path / "tiny", tiny_unet()))
    assert models.get(folder) is models.get(folder)
    with pytest.raises(InputError, match="There is no folder"):
        models.get(str(tmp_path / "none"))


def the_wish(name: str, cascade: Cascade, model: str, video: str) -> Wish:
    made = {
        "generate": lambda: wishes.generate(cascade, model, "red sun", PLAIN),
        "vary": lambda: wishes.vary(cascade, model, video, PLAIN),
        "extend": lambda: wishes.extend(cascade, model, video, 3, "reconstruction", "", PLAIN),
        "infill": lambda: wishes.infill(cascade, model, video, "1-2", "", PLAIN),
        "faster": lambda: wishes.faster(cascade, model, video, 2, "reconstruction", "", PLAIN),
        "upscale": lambda: wishes.upscale(cascade, model, video, "reconstruction", "", PLAIN),
    }
    return made[name]()


@pytest.mark.parametrize("name", ["generate", "vary", "extend", "infill", "faster", "upscale"])
def test_the_settings_make_the_same_video_again(
    name: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    side = 8 if name == "upscale" else 16
    frames = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    video = str(write_video("in.mp4", frames, 6))
    cascade = Models("cpu").get(family)
    job = run(the_wish(name, cascade, family, video), cascade, tmp_path)
    written = result_of(job).written
    settings = json.loads(Path(written.settings).read_text())
    assert settings["seed"] == 5 and settings["inputs"] == ["red sun" if name == "generate" else "in.mp4"]
    assert len(written.all()) == 4 and all(Path(path).stat().st_size for path in written.all())
    shapes = {decode_video(path).frames.shape for path in (written.mp4, written.gif, written.webp)}
    assert shapes == {(settings["frames_made"], 16, 16, 3)}
    if name != "generate":
        assert job.told == sorted(job.told) and len({share for share in job.told if 0.03 < share < 0.9}) >= 2
    words = shlex.split(settings["command_line"])[1:]
    words[words.index("-o") + 1] = "again.mp4"
    extra = ["--no-sheet"] if name == "generate" else []
    assert main([*words, "--quiet", "--device", "cpu", *extra]) == 0
    assert np.array_equal(decode_video("again.mp4").frames, decode_video(written.mp4).frames)


def test_previews_are_large_enough_to_see_and_the_slider_compares_equal_sizes(tmp_path: Path) -> None:
    from PIL import Image

    low = np.stack([np.full((16, 16, 3), 100 * index, np.uint8) for index in range(3)])
    high = np.full((9, 64, 64, 3), 255, np.uint8)
    assert decode_video(write_preview(low, 8, tmp_path)).frames.shape == (3, 192, 192, 3)
    before, after = (Image.open(path) for path in write_comparison(low, high, tmp_path))
    assert before.size == after.size == (64, 64)
    assert before.getpixel((5, 5)) == (100, 100, 100) and after.getpixel((5, 5)) == (255, 255, 255)
    shares: list[float] = []
    request = wishes.Request("generate", ("x",), "m", 1, {})
    write_all(high, 8, request, tmp_path, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1


def test_elapsed_counts_from_the_start() -> None:
    job = Job("kind", "x", lambda job: pytest.fail("it does not run"), Paces())
    assert job.elapsed() == 0
    job._start = time.monotonic() - 10
    assert job.elapsed() == pytest.approx(10, abs=5)
