"""The commands beside ``generate``, on the tiny family with stages that show what they were given."""

import gc
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.cascade import Cascade
from inflate.cascade.reconstruction import frame_numbers
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.data.sound import Sound
from inflate.data.writing import write_video
from inflate.errors import InputError
from inflate.stages import ChainState, OnStep, StageSettings
from tests.cascade.test_applications import Doubling, DoublingAgain, RecordingInterpolation
from tests.cli.toys import tiny_chain
from tests.data_writing.test_times_and_sound import heard, with_sound
from tests.models.tiny_family import tiny_cascade

SIZE = 16


@pytest.fixture
def interpolation(monkeypatch: pytest.MonkeyPatch) -> RecordingInterpolation:
    stage = RecordingInterpolation()
    stages = (*tiny_cascade().stages, stage, Doubling(), DoublingAgain())
    made = Cascade(stages, device="cpu", keep_loaded=True)
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *arguments, **more: made))
    return stage


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (20, 10), (200, 0, 0)).save(path)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    frames = np.stack([np.full((SIZE, SIZE, 3), 20 * index, np.uint8) for index in range(6)])
    return write_video(tmp_path / "in.gif", frames, 10)


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def read(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(container.streams.video[0].average_rate or 0)


def test_animate(
    interpolation: RecordingInterpolation, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("animate", picture, "-o", tmp_path / "out.mp4", "--frames", 4, "--fps", 6, "--quiet") == 0
    frames, fps = read(tmp_path / "out.mp4")
    assert frames.shape == (4, 64, 96, 3) and fps == 6
    assert np.abs(frames[0].astype(int) - [200, 0, 0]).max() < 12  # no bars
    assert "Frames are 24 x 16 px, from 20 x 10; 25 % at the edges is cropped." in capsys.readouterr().err
    [state] = interpolation.seen
    assert state.frame_skip == 5 and state.known_frames is not None and state.known_frames.sum() == 1


def test_interpolate_pictures_and_a_video(
    interpolation: RecordingInterpolation, picture: Path, video: Path, tmp_path: Path
) -> None:
    assert run("interpolate", picture, picture, "-o", tmp_path / "two.gif", "--frames", 4, "--quiet") == 0
    assert run("interpolate", video, "-o", tmp_path / "more.gif", "--frame-skip", 3, "--quiet") == 0
    two, more = interpolation.seen
    assert two.known_frames is not None and two.known_frames.tolist() == [True, False, False, True]
    assert more.known_frames is None and more.frame_skip == 3 and more.fps == pytest.approx(10)
    assert run("interpolate", video, video, video, "-o", tmp_path / "x.gif") == 2


def test_extend_and_vary(interpolation: RecordingInterpolation, video: Path, tmp_path: Path) -> None:
    assert run("extend", video, "-o", tmp_path / "longer.mp4", "--frames", 3, "--quiet") == 0
    frames, fps = read(tmp_path / "longer.mp4")
    assert len(frames) == 9 and fps == 10
    arguments = ["vary", video, "-o", tmp_path / "other.mp4", "--frames", 4, "--quiet", "--until", "decoder"]
    assert run(*arguments) == 0
    assert read(tmp_path / "other.mp4")[0].shape == (4, SIZE, SIZE, 3)


def test_upscale_streams_and_reports(
    interpolation: RecordingInterpolation, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "large.mp4"
    assert run("upscale", video, "-o", out, "--json", "--quiet") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["videos"] == [str(out)] and report["settings"]["fps"] == pytest.approx(10)
    frames, _ = read(out)
    assert frames.shape == (6, 64, 64, 3) and abs(int(frames[3, 5, 5, 0]) - 60) < 6
    assert not interpolation.seen
    assert run("upscale", video, "-o", out) == 2  # it exists
    assert run("upscale", video, "-o", out, "--force", "--until", "super_resolution", "--quiet") == 0
    assert read(out)[0].shape == (6, 32, 32, 3)


def test_upscale_keeps_uneven_times_and_sound(
    interpolation: RecordingInterpolation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = [0.0, 0.1, 0.2, 1.0]
    frames = np.stack([np.full((16, 16, 3), 40 * number, np.uint8) for number in range(4)])
    spans = list(zip(starts, [*starts[1:], 1.2], strict=True))
    toned = Sound(with_sound(tmp_path / "tone.mp4", "aac", 1.2))
    uneven = write_video(tmp_path / "uneven.mp4", frames, 3, spans=spans, sound=toned)
    assert run("upscale", uneven, "-o", tmp_path / "large.mp4", "--quiet") == 0
    made = decode_video(tmp_path / "large.mp4")
    assert made.timestamps == pytest.approx(starts, abs=2e-3) and made.duration == pytest.approx(1.2, abs=0.05)
    assert heard(tmp_path / "large.mp4") == pytest.approx(heard(uneven), abs=0.06)
    raw = with_sound(tmp_path / "raw.mkv", "pcm_u8", 0.2)
    capsys.readouterr()
    assert run("upscale", raw, "-o", tmp_path / "silent.mp4", "--quiet", "--until", "super_resolution") == 0
    assert f"The sound of {raw} is left out: an mp4 cannot hold its codec, pcm_u8." in capsys.readouterr().err


class Repeating(RecordingInterpolation):
    """As many frames as ↑F makes, each one the known one before it."""

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        assert state.frames is not None
        more = state.frames.repeat_interleave(state.frame_skip, dim=2)[:, :, : 1 - state.frame_skip or None]
        return super().__call__(replace(state, frames=more, fps=state.fps * state.frame_skip), settings, on_step)


def test_interpolated_frames_stand_between_known_ones_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = Cascade((*tiny_cascade().stages, Repeating()), device="cpu", keep_loaded=True)
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *arguments, **more: cascade))
    starts = [0.0, 0.2, 0.4, 2.0]
    frames = np.stack([np.full((16, 16, 3), 40 * number, np.uint8) for number in range(4)])
    toned = Sound(with_sound(tmp_path / "tone.mp4", "aac", 2.4))
    spans = list(zip(starts, [*starts[1:], 2.4], strict=True))
    uneven = write_video(tmp_path / "uneven.mp4", frames, 3, spans=spans, sound=toned)
    assert run("interpolate", uneven, "-o", tmp_path / "more.mp4", "--frame-skip", 2, "--quiet") == 0
    made = decode_video(tmp_path / "more.mp4")
    assert made.timestamps == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 1.2, 2.0], abs=2e-3)
    assert made.duration == pytest.approx(2.4, abs=0.05)
    assert heard(tmp_path / "more.mp4") == pytest.approx(heard(uneven), abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["animate", "none.png", "-o", "x.mp4"], "There is no picture none.png"),
        (["animate", "text.png", "-o", "x.mp4"], "it is a text file"),
        (["animate", "cat.png", "-o", "x.avi"], "must end in one of"),
        (["upscale", "text.mp4", "-o", "x.mp4"], "cannot read text.mp4 as a video"),
        (["upscale", "none.mp4", "-o", "x.mp4"], "there is no such file; check its name"),
        (["animate", ".", "-o", "x.mp4"], ". is a folder; name a picture in it."),
        (["infill", ".", "-o", "x.mp4", "--missing", "1"], "here; name a video file"),
        *(
            ([name, ".", "-o", "x.mp4"], "here; name a video file")
            for name in ("upscale", "interpolate", "extend", "vary")
        ),
        (["upscale", "long.gif", "-o", "/proc/x.mp4"], "/proc/x.mp4 cannot be made: /proc may not be written to"),
        (["vary", "text.png", "-o", "x.mp4"], "cannot read text.png as a video"),
        (["animate", "cat.png", "-o", "x.mp4", "--until", "decodr"], "did you mean 'decoder'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    interpolation: RecordingInterpolation,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.png", "text.mp4"):
        Path(name).write_text("no picture")
    stills = [Image.new("RGB", (4, 4), (index, 0, 0)) for index in (0, 200)]
    stills[0].save("long.gif", save_all=True, append_images=stills[1:], duration=60_000)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("error:") == 1
    assert not list(tmp_path.glob("x.*"))


def test_upscale_takes_a_factor_and_says_how_long(
    interpolation: RecordingInterpolation, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("upscale", video, "-o", tmp_path / "three.mp4", "--factor", 3) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert read(tmp_path / "three.mp4")[0].shape == (6, 48, 48, 3)
    # One millisecond for a pixel of each stage, as these stages say: 6 frames of 16 and of 32 px a side, and writing.
    assert "6 frames of 48 x 48 px: about 8 s on this machine" in told
    assert run("upscale", video, "-o", tmp_path / "two.mp4", "--factor", 2, "--quiet") == 0
    assert read(tmp_path / "two.mp4")[0].shape == (6, 32, 32, 3) and not capsys.readouterr().err
    for factor, method in ((5, "super-resolution"), (2, "reconstruction")):
        assert run("upscale", video, "-o", tmp_path / "x.mp4", "--factor", factor, "--method", method) == 2
    error = capsys.readouterr().err
    assert "The factor is 5; this model enlarges 1 to 4 times (exactly 2, 4;" in error
    assert "--factor is for --method super-resolution" in error


@pytest.mark.parametrize("command", ["interpolate", "extend"])
def test_long_work_on_a_video_says_how_long_first(
    interpolation: RecordingInterpolation,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    more = {"interpolate": ["--frame-skip", 1], "extend": ["--frames", 3]}[command]
    out = tmp_path / "out.mp4"
    assert run(command, video, "-o", out, *more) == 0
    assert " on this machine" not in capsys.readouterr().err, "so little is done before a part of it were timed"
    monkeypatch.setattr("inflate.cascade.timing._LONG", 1)
    told: list[tuple[int, int]] = []
    seconds = lambda state, height, width, settings: told.append((height, width)) or 600.0  # noqa: E731
    monkeypatch.setattr(RecordingInterpolation, "seconds", staticmethod(seconds), raising=False)
    monkeypatch.setattr(RecordingInterpolation, "window_size", lambda self: 4, raising=False)
    assert run(command, video, "-o", out, "--force", *more) == 0
    said = " ".join(capsys.readouterr().err.split())
    # Of a pixel of each super-resolution stage a millisecond, as these stages say, and ten minutes for new frames.
    count, minutes = (6, 0) if command == "interpolate" else (9, 10)
    assert f"{count} frames of 64 x 64 px: about" in said and told == [(SIZE, SIZE)] * (minutes > 0)
    assert ("about 10 min" in said) == (minutes > 0)
    assert run(command, video, "-o", out, "--force", "--quiet", *more) == 0 and not capsys.readouterr().err


def test_what_does_not_fit_is_refused_before_any_work(
    interpolation: RecordingInterpolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    large = write_video(tmp_path / "large.mp4", np.zeros((3, 1600, 3000, 3), np.uint8), 10)
    assert run("upscale", large, "-o", tmp_path / "x.mp4", "--factor", 4) == 2
    assert "Frames of 12000 x 6400 px are larger than an mp4 can have" in capsys.readouterr().err
    assert run("upscale", large, "-o", tmp_path / "x.webp", "--factor", 4) == 2
    assert (
        "3 frames of 12000 x 6400 px are 0.7 GB, and a webp takes 0.5 GB at most; write an mp4"
        in capsys.readouterr().err
    )
    monkeypatch.setattr("inflate.cascade.enlarging.shutil.disk_usage", lambda folder: SimpleNamespace(free=10**6))
    assert run("upscale", large, "-o", tmp_path / "x.mp4", "--factor", 2) == 2
    assert "which has 0.0 GB left; make room" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*")) and not interpolation.seen


@pytest.mark.parametrize("command", [("interpolate", "--frame-skip", 2), ("extend", "--frames", 5), ("vary",)])
def test_long_videos_are_read_at_the_size_of_the_model_and_made_by_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...]
) -> None:
    """Frames of 480 px become 16 px while they are read: no more than a chunk or two of them is in memory."""
    cascade = tiny_chain()
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *arguments, **more: cascade))
    monkeypatch.setattr("inflate.cli.known_video._MADE_BYTES", 0)
    count, side = 120, 480
    source = write_video(
        tmp_path / "long.mp4", (np.full((10, side, side, 3), number, np.uint8) for number in range(count // 10)), 30
    )
    gc.collect()
    tracemalloc.start()
    try:
        arguments = [
            *command,
            "--until",
            "decoder" if command == ("vary",) else "interpolation",
            "--steps",
            1,
            "--quiet",
        ]
        assert run(arguments[0], source, "-o", tmp_path / "out.mp4", *arguments[1:]) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.4 * count * side**2 * 3
    frames, _ = read(tmp_path / "out.mp4")
    if command[0] == "vary":
        assert len(frames) == 16
        return
    assert len(frames) == {"interpolate": 2 * count - 1, "extend": count + 5}[command[0]]
    known = frames[:count] if command[0] == "extend" else frames[::2]
    assert abs(known.mean(axis=(1, 2, 3)) - np.arange(count) // 10).max() < 3


def test_a_video_of_too_many_bytes_is_refused_where_it_must_lie_in_memory(
    interpolation: RecordingInterpolation, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("inflate.cli.known_video._READ_BYTES", 6 * SIZE * SIZE * 3 - 1)
    arguments = ("infill", video, "--missing", "2", "-o", tmp_path / "x.mp4")
    assert run(*arguments) == 2
    assert f"{video} has 6 frames, at 16 x 16 px 0.0 GB; this works on at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1-2,4", [1, 2, 4]),
        (" 1 - 2 ", [1, 2]),
        ("3-1", "3-1 runs backwards; give the smaller number first"),
        ("0-5", "all 6 frames of the video; leave one or more that are known"),
        ("4-6", "the video has 6 frames, numbered from 0 to 5"),
        ("", "give frame numbers from 0"),
        ("1,", "give frame numbers from 0"),
        ("-1", "give frame numbers from 0"),
    ],
)
def test_numbers_of_missing_frames(text: str, found: list[int] | str) -> None:
    if isinstance(found, list):
        assert frame_numbers(text, 6, "--missing") == found
        return
    with pytest.raises(InputError, match=found):
        frame_numbers(text, 6, "--missing")


def test_a_single_picture_cannot_be_interpolated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    assert main(["interpolate", str(tmp_path / "one.png"), "-o", str(tmp_path / "out.mp4")]) == 2
    assert "is a single picture; interpolate takes two pictures" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
