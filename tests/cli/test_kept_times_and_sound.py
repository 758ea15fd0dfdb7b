"""What each command does with the times and the sound of its video: known frames stay at their times."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.data import decode_video, frame_times
from inflate.data.sound import Sound
from inflate.data.writing import write_video
from tests.cascade.test_applications import Doubling
from tests.cli.test_applications import Repeating
from tests.data_writing.test_times_and_sound import heard, with_sound
from tests.models.tiny_family import tiny_cascade

STARTS, END = [0.0, 0.2, 0.4, 2.0], 2.4
RAISED = [0.0, 0.1, 0.2, 0.3, 0.4, 1.2, 2.0]
LONGER = [*STARTS, 2.4, 3.0]
SILENT = "ends after 2.4 s; the new frames are silent."

# arguments, when frames are shown, what is said of the sound
TABLE: dict[str, tuple[list[str], list[float], str]] = {
    "upscale": (["upscale"], STARTS, ""),
    "upscale, reconstruction": (["upscale", "--method", "reconstruction"], STARTS, ""),
    "interpolate": (["interpolate", "--frame-skip", "2"], RAISED, ""),
    "interpolate, reconstruction": (["interpolate", "--frame-skip", "2", "--method", "reconstruction"], RAISED, ""),
    "extend": (["extend", "--frames", "2"], LONGER, SILENT),
    "extend, reconstruction": (["extend", "--frames", "2", "--method", "reconstruction"], LONGER, SILENT),
    "infill": (["infill", "--missing", "1"], STARTS, ""),
    "vary": (["vary", "--frames", "4", "--fps", "8", "--until", "decoder"], [0.0, 0.125, 0.25, 0.375], "of its own."),
}


@pytest.fixture(autouse=True)
def cascade(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Cascade((*tiny_cascade().stages, Repeating(), Doubling()), device="cpu", keep_loaded=True)
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *arguments, **more: made))


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Four frames of 8 px, the third one shown for long, with sound that goes on after the last one."""
    frames = np.stack([np.full((8, 8, 3), 40 * number, np.uint8) for number in range(4)])
    spans = list(zip(STARTS, [*STARTS[1:], END], strict=True))
    toned = Sound(with_sound(tmp_path / "tone.mp4", "aac", 6.0))
    return write_video(tmp_path / "uneven.mp4", frames, 3, spans=spans, sound=toned)


def run(arguments: list[str], source: Path, out: Path) -> int:
    command, *more = arguments
    return main([command, str(source), "-o", str(out), "--steps", "2", "--quiet", *more])


@pytest.mark.parametrize(("arguments", "starts", "said"), TABLE.values(), ids=list(TABLE))
def test_frames_stay_at_their_times_and_sound_with_them(
    uneven: Path, tmp_path: Path, capsys: Any, arguments: list[str], starts: list[float], said: str
) -> None:
    out = tmp_path / "out.mp4"
    assert run(arguments, uneven, out) == 0
    made, error = decode_video(out), capsys.readouterr().err
    assert made.timestamps == pytest.approx(starts, abs=2e-3)
    assert "shown evenly" not in error
    if said.endswith("own."):
        assert f"The sound of {uneven} is left out: the new video has times {said}" in error
        assert not Sound(out).there()
        return
    loud, end = heard(out)
    assert loud == pytest.approx(min(3.0, END) if said else 3.0, abs=0.06)
    assert end == pytest.approx(END if said else 6.0, abs=0.06)
    assert (f"The sound of {uneven} {said}" in error) == bool(said) and error.count("sound") == bool(said)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize(("arguments", "starts", "said"), TABLE.values(), ids=list(TABLE))
def test_formats_without_sound_keep_times_and_say_so(
    uneven: Path, tmp_path: Path, capsys: Any, suffix: str, arguments: list[str], starts: list[float], said: str
) -> None:
    out = tmp_path / f"out{suffix}"
    assert run(arguments, uneven, out) == 0
    reason = f"a {suffix[1:]} holds none" if not said.endswith("own.") else "the new video has times of its own"
    assert capsys.readouterr().err.count(f"The sound of {uneven} is left out: {reason}.") == 1
    assert decode_video(out).timestamps == pytest.approx(starts, abs=0.011)


@pytest.mark.parametrize(("arguments", "starts", "said"), TABLE.values(), ids=list(TABLE))
def test_a_video_is_shown_as_often_as_its_source(
    tmp_path: Path, arguments: list[str], starts: list[float], said: str
) -> None:
    frames = np.stack([np.full((8, 8, 3), 40 * number, np.uint8) for number in range(4)])
    for loops, suffix in ((0, ".webp"), (1, ".gif"), (3, ".webp"), (3, ".gif")):
        source = write_video(tmp_path / f"{loops}.gif", frames, 10, overwrite=True, loops=loops)
        out = tmp_path / f"out {loops}{suffix}"
        assert run(arguments, source, out) == 0
        made = frame_times(out)
        assert len(made.spans) == len(starts) and made.loops == (0 if said.endswith("own.") else loops)


@pytest.mark.parametrize(("late", "said"), [(0.05, False), (0.75, True)])
def test_sound_before_the_first_picture_is_left_out_with_a_sentence(
    tmp_path: Path, capsys: Any, late: float, said: bool
) -> None:
    spans = [(late + number / 4, late + (number + 1) / 4) for number in range(4)]
    tone = Sound(with_sound(tmp_path / "tone.mp4", "aac", 3.0))
    source = write_video(tmp_path / "in.mp4", np.zeros((4, 8, 8, 3), np.uint8), 4, spans=spans, sound=tone)
    assert run(["upscale"], source, tmp_path / "out.mp4") == 0
    error = capsys.readouterr().err
    assert (f"The sound of {source} before its first picture, 0.75 s, is left out." in error) == said
    assert ("left out" in error) == said and heard(tmp_path / "out.mp4")[0] == pytest.approx(1.5 - late, abs=0.06)


def test_a_silent_video_needs_no_words(tmp_path: Path, capsys: Any) -> None:
    source = write_video(tmp_path / "in.gif", np.zeros((3, 8, 8, 3), np.uint8), 10)
    for number, (arguments, _, _) in enumerate(TABLE.values()):
        assert run(arguments, source, tmp_path / f"{number}.gif") == 0
    assert "sound" not in capsys.readouterr().err


def test_of_several_sound_tracks_the_first_is_kept(uneven: Path, tmp_path: Path, capsys: Any) -> None:
    two = tmp_path / "two.mp4"
    with av.open(str(uneven)) as source, av.open(str(two), "w") as target:
        copies = [(stream, target.add_stream_from_template(stream)) for stream in (*source.streams, source.streams[1])]
        for packet in source.demux():
            for stream, copy in copies:
                if packet.stream is stream and packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
                    packet.stream = stream
    assert Sound(two).tracks == 2
    assert run(["upscale"], two, tmp_path / "out.mp4") == 0
    assert f"Of the 2 sound tracks of {two} the first one is kept." in capsys.readouterr().err
    assert Sound(tmp_path / "out.mp4").tracks == 1


def subtitled(source: Path, path: Path) -> Path:
    text = io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n")
    with av.open(str(source)) as video, av.open(text, "r", "srt") as lines, av.open(str(path), "w") as target:
        streams = [*video.streams, lines.streams.subtitles[0]]
        copies = {id(stream): target.add_stream_from_template(stream) for stream in streams}
        for packet in [*video.demux(), *lines.demux()]:
            if packet.dts is not None:
                packet.stream = copies[id(packet.stream)]
                target.mux(packet)
    return path


@pytest.mark.parametrize("arguments", [arguments for arguments, _, _ in TABLE.values()], ids=list(TABLE))
@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_subtitles_that_are_left_out_are_named(
    uneven: Path, tmp_path: Path, capsys: Any, arguments: list[str], suffix: str
) -> None:
    for source in (subtitled(uneven, tmp_path / "told.mkv"), uneven):
        assert run(arguments, source, tmp_path / f"{source.stem}-out{suffix}") == 0
        said = f"The subtitles of {source} are left out."
        assert capsys.readouterr().err.count(said) == (source is not uneven)


def test_an_odd_mp4_grows_with_a_sentence(tmp_path: Path, capsys: Any) -> None:
    source = write_video(tmp_path / "in.gif", np.zeros((3, 10, 6, 3), np.uint8), 10)
    assert run(["upscale", "--factor", "1.5"], source, tmp_path / "out.mp4") == 0
    assert "frames of 9 x 15 px get an edge pixel more, 10 x 16." in capsys.readouterr().err
