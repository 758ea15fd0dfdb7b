import json
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inflate import staging
from inflate.data import decode_video, writing
from inflate.data.sound import Sound
from inflate.data.writing import (
    check_output,
    contact_sheet,
    enlarge,
    frame_durations,
    shown_otherwise,
    write_contact_sheet,
    write_text,
    write_video,
)
from inflate.errors import InputError


def moving_square(num_frames: int = 6, size: int = 32) -> np.ndarray:
    """White, with a red square that moves to the right."""
    frames = np.full((num_frames, size, size, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        frame[8:16, 2 + 3 * number : 10 + 3 * number] = (200, 30, 30)
    return frames


def durations(path: Path) -> list[float]:
    with Image.open(path) as picture:
        found = []
        for number in range(picture.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            picture.seek(number)
            picture.load()
            found.append(picture.info["duration"])
    return found


def read(path: Path) -> np.ndarray:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with Image.open(path) as picture:
        frames = []
        for number in range(picture.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")))
    return np.stack(frames)


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".GIF"])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str) -> None:
    frames = moving_square()
    path = write_video(tmp_path / "deep" / f"out{suffix}", frames, fps=8)
    back = read(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 4
    # Frame by frame it is nearer to its own frame than to the next.
    for number in range(len(frames) - 1):
        own, other = (np.abs(back[number].astype(int) - frames[k]).mean() for k in (number, number + 1))
        assert own < other / 3
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("fps", [4, 8, 12.5, 29.97, 30])
def test_mp4_keeps_the_frame_rate(tmp_path: Path, fps: float) -> None:
    path = write_video(tmp_path / "out.mp4", moving_square(), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-5)
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(np.diff(times), 1 / fps, atol=1e-4)


def test_mp4_of_an_odd_size_grows_by_one_pixel(tmp_path: Path) -> None:
    frames = moving_square()[:, :31, :29]
    back = read(write_video(tmp_path / "out.mp4", frames, 8))
    assert back.shape == (6, 32, 30, 3)
    assert np.abs(back[:, :31, :29].astype(int) - frames).mean() < 4


@pytest.mark.parametrize(
    ("name", "size", "fps", "sentence"),
    [
        ("a.mp4", (31, 30), 8, "An mp4 has even sides: frames of 30 x 31 px get an edge pixel more, 30 x 32."),
        ("a.MP4", (31, 29), 8, "An mp4 has even sides: frames of 29 x 31 px get an edge pixel more, 30 x 32."),
        (
            "a.gif",
            (32, 32),
            60,
            "Browsers show 50 frames of a gif a second at most, not 60; write webp or mp4.",
        ),
        ("a.gif", (31, 31), 50, ""),
        ("a.webp", (31, 31), 60, ""),
        ("a.mp4", (32, 32), 60, ""),
    ],
)
def test_what_a_format_cannot_show_is_said(name: str, size: tuple[int, int], fps: float, sentence: str) -> None:
    assert shown_otherwise(name, size, fps) == sentence


def test_animations_keep_the_durations(tmp_path: Path) -> None:
    assert durations(write_video(tmp_path / "a.gif", moving_square(), 8)) == [130, 120, 130, 120, 130, 120]
    assert durations(write_video(tmp_path / "a.webp", moving_square(), 8)) == [125] * 6
    assert durations(write_video(tmp_path / "b.webp", moving_square(), 30)) == [33, 34, 33, 33, 34, 33]


@given(st.integers(1, 200), st.floats(0.5, 60), st.sampled_from([1, 10]))
def test_rounded_durations_add_up(num_frames: int, fps: float, tick: int) -> None:
    made = frame_durations(num_frames, fps, tick)
    assert len(made) == num_frames and all(ms >= tick and ms % tick == 0 for ms in made)
    assert abs(sum(made) - num_frames * 1000 / fps) <= tick / 2 + 1e-6


def test_a_frame_is_never_shown_for_no_time() -> None:
    assert frame_durations(5, 400, 10) == [10] * 5


def test_gif_does_not_flicker_where_nothing_moves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.broadcast_to(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), (6, 32, 32, 3)).copy()
    for number, frame in enumerate(frames):
        frame[:4, 4 * number : 4 * number + 4] = 255
    back = read(write_video(tmp_path / "a.gif", frames, 8))
    assert len(back) == 6 and np.ptp(back[:, 8:].astype(int), axis=0).max() == 0


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
@pytest.mark.parametrize("place", ["/proc/x.mp4", "/proc/new/x.mp4", "/sys/x.mp4"])
def test_a_file_system_that_takes_no_files_is_refused(place: str) -> None:
    """Its permissions let the superuser write there."""
    with pytest.raises(InputError, match=r"cannot be made: /(proc|sys) may not be written to; name another place"):
        check_output(place)


def test_asking_for_a_place_leaves_nothing_there(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new" / "x.mp4") == tmp_path / "new" / "x.mp4"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.mp3", "out", "out.avi", "out.mp4.txt"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must end in one of \.mp4, \.webp, \.gif"):
        write_video(tmp_path / name, moving_square(), 8)
    assert not list(tmp_path.iterdir())


WRITERS: dict[str, Callable[[Path, bool], object]] = {
    "out.mp4": lambda path, force: write_video(path, moving_square(), 8, overwrite=force),
    "out.webp": lambda path, force: write_video(path, moving_square(), 8, overwrite=force),
    "out.gif": lambda path, force: write_video(path, moving_square(), 8, overwrite=force),
    "out.png": lambda path, force: write_contact_sheet(path, [moving_square()], ["a"], overwrite=force),
    "out.json": lambda path, force: write_text(path, "{}", overwrite=force),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_came_while_a_file_was_made_is_kept_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As if another command had ended behind this one's first look and before its last."""
    path, write, look = tmp_path / name, WRITERS[name], staging._take
    monkeypatch.setattr(staging, "_take", lambda path, partial: (path.write_text("theirs"), look(path, partial)))
    with pytest.raises(InputError, match=r"exists; .* --force"):
        write(path, False)
    assert path.read_text() == "theirs" and [one.name for one in tmp_path.iterdir()] == [name]
    write(path, True)
    assert path.read_bytes() != b"theirs" and [one.name for one in tmp_path.iterdir()] == [name]


def test_two_commands_that_write_one_video_at_once_lose_none_without_a_word(tmp_path: Path) -> None:
    path, other = tmp_path / "out.mp4", moving_square()[:3]

    def frames() -> Iterator[np.ndarray]:
        yield moving_square()
        write_video(path, other, 8)  # begun later, and ended sooner

    with pytest.raises(InputError, match=r"out.mp4 exists; choose another name, or replace it with --force"):
        write_video(path, frames(), 8)
    assert len(read(path)) == len(other) and [one.name for one in tmp_path.iterdir()] == ["out.mp4"]


def test_an_existing_file_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.gif"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"exists; .* --force"):
        write_video(path, moving_square(), 8)
    assert path.read_text() == "mine"
    write_video(path, moving_square(), 8, overwrite=True)
    assert len(read(path)) == 6
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_video(tmp_path / "folder.mp4", moving_square(), 8, overwrite=True)


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("old")

    def full_disk(partial: Path, frames: np.ndarray, fps: float, *_: object) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_mp4" if suffix == ".mp4" else "_write_animation", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_video(path, moving_square(), 8, overwrite=True)
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_arrays_and_rates_that_are_no_video() -> None:
    for frames in (moving_square()[0], moving_square().astype(np.float32), moving_square()[:0]):
        with pytest.raises(InputError, match="A video is uint8"):
            write_video("out.mp4", frames, 8)
    with pytest.raises(InputError, match="fps must be above 0"):
        write_video("out.mp4", moving_square(), 0)


def test_enlarging_for_viewing() -> None:
    frames = moving_square(2)
    nearest = enlarge(frames, 4)
    assert nearest.shape == (2, 128, 128, 3) and np.array_equal(nearest[:, ::4, ::4], frames)
    smooth = enlarge(frames, 4, "lanczos")
    assert smooth.shape == nearest.shape and not np.array_equal(smooth, nearest)
    assert enlarge(frames, 1) is frames
    with pytest.raises(InputError, match="scale must lie between"):
        enlarge(frames, 0)


def test_a_contact_sheet_has_a_row_per_video(tmp_path: Path) -> None:
    red = np.zeros((20, 10, 10, 3), np.uint8)
    red[..., 0] = np.arange(100, 120, dtype=np.uint8)[:, None, None]
    blue = np.zeros((3, 8, 8, 3), np.uint8)
    blue[..., 2] = 90
    sheet = np.asarray(contact_sheet([red, blue], ["red ones", "blue ones"], columns=4))
    first_row = sheet[np.any((sheet[..., 1] == 0) & (sheet[..., 0] >= 100), axis=1)]
    shown = sorted(set(first_row[..., 0][first_row[..., 1] == 0].tolist()) & set(range(100, 120)))
    assert shown == [100, 106, 113, 119]  # evenly spread, first and last among them
    assert (sheet.reshape(-1, 3) == (0, 0, 90)).all(-1).sum() == 3 * 64
    path = write_contact_sheet(tmp_path / "a.png", [red, blue], ["red ones", "blue ones"])
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    with pytest.raises(InputError, match="a label for each, got 1 and 2"):
        contact_sheet([red], ["a", "b"])


def test_text_is_written_whole(tmp_path: Path) -> None:
    path = write_text(tmp_path / "settings.json", json.dumps({"seed": 1}))
    assert json.loads(path.read_text()) == {"seed": 1}
    with pytest.raises(InputError, match="exists"):
        write_text(path, "{}")


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_name_like_an_address_opens_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """FFmpeg takes what stands before a colon for a protocol: to connect, to write a checksum, or into another file."""
    monkeypatch.chdir(tmp_path)
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    names = (
        "a:b",
        "md5:x/out",
        "pipe:1/out",
        "tcp:x/out",
        "concat:x/out",
        "file:x",
        "http:x",
        "data:x/out",
        "a|b",
        "%d",
    )
    for name in names:
        path = Path(name + suffix)
        write_video(path, frames, 8)
        assert len(decode_video(path).frames) == 3 and Sound(path).tracks == 0
    made = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {tmp_path / f"{name}{suffix}" for name in names}
