"""Decoding keeps a file's own timestamps, makes squares, and says what is wrong with a bad file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inflate.data import VideoError, decode_video, sample_clip_indices
from inflate.data.decode import fit_square
from inflate.data.reading.pictures import on_white
from inflate.data.writing import write_video
from inflate.errors import InputError

LEVELS = [0, 50, 100, 150, 200]
DURATIONS_MS = [100, 50, 250, 400, 200]
STARTS = [0.0, 0.1, 0.15, 0.4, 0.8]


def level(frame: np.ndarray) -> float:
    return float(frame.mean())


def test_a_webp_keeps_its_uneven_timestamps(tmp_path: Path, write_webp) -> None:
    video = decode_video(write_webp(tmp_path / "a.webp", LEVELS, DURATIONS_MS))
    assert video.timestamps == pytest.approx(STARTS)
    assert video.duration == pytest.approx(1.0) and video.loop
    assert [level(frame) for frame in video.frames] == LEVELS


def test_a_webp_that_plays_once_does_not_loop(tmp_path: Path, write_webp) -> None:
    assert not decode_video(write_webp(tmp_path / "a.webp", LEVELS, DURATIONS_MS, loop=1)).loop


@pytest.mark.parametrize("fps", [4, 8, 30])
def test_an_mp4_shows_the_right_frames_at_any_rate(tmp_path: Path, write_mp4, fps: float) -> None:
    path = write_mp4(tmp_path / "a.mp4", LEVELS, [round(1000 * start) for start in STARTS])
    video = decode_video(path)
    assert video.timestamps == pytest.approx(STARTS, abs=1e-3) and not video.loop
    count = int(0.8 * fps)
    shown = sample_clip_indices(video.timestamps, video.duration, fps, count)
    for step, index in enumerate(shown):
        wanted = max(i for i, start in enumerate(STARTS) if start <= step / fps + 1e-3)
        assert abs(level(video.frames[index]) - LEVELS[wanted]) < 4


def test_an_mp4_round_trip(tmp_path: Path) -> None:
    rows = np.linspace(20, 220, 64, dtype=np.uint8)
    frames = np.stack([np.repeat(np.roll(rows, 2 * i)[:, None, None], 64, 1).repeat(3, 2) for i in range(24)])
    video = decode_video(write_video(tmp_path / "a.mp4", frames, 24))
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames.astype(int) - frames).mean() < 3
    assert video.timestamps == pytest.approx(np.arange(24) / 24, abs=1e-4)
    assert video.duration == pytest.approx(1.0, abs=1e-3) and video.fps == pytest.approx(24, abs=0.1)


def test_a_gif_without_durations_shows_ten_frames_a_second(tmp_path: Path) -> None:
    pictures = [Image.new("L", (8, 8), value) for value in (0, 128, 255)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=0, loop=0)
    assert decode_video(tmp_path / "a.gif").timestamps == pytest.approx([0, 0.1, 0.2])


def test_transparency_becomes_white(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (8, 8), (255, 0, 0, alpha)) for alpha in (0, 128, 255)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=50, lossless=True)
    greens = decode_video(tmp_path / "a.webp").frames[:, 0, 0, 1].tolist()
    assert greens == pytest.approx([255, 127, 0], abs=1)


def test_what_the_frames_of_a_webp_leave_uncovered_is_white(tmp_path: Path) -> None:
    pictures = []
    for value in (50, 100):
        picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        picture.paste((value, 0, 0, 255), (8, 8, 24, 24))
        pictures.append(picture)
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50, lossless=True)
    with Image.open(path) as image:
        assert image.mode == "RGB"  # Pillow's encoder left the flag for transparency out
    frames = decode_video(path).frames
    assert (frames[:, 0, 0] == 255).all() and frames[:, 16, 16, 0].tolist() == [50, 100]


def test_cropping_takes_the_middle_and_padding_adds_white() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    picture = Image.fromarray(pixels)
    assert np.asarray(fit_square(picture, None)).min() == 200
    padded = np.asarray(fit_square(picture, None, "pad"))
    assert padded.shape == (30, 30, 3) and (padded[:10] == 255).all() and (padded[20:] == 255).all()
    assert (padded[10:20] == pixels).all()


def test_whole_reductions_are_box_averages() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    small = np.asarray(fit_square(Image.fromarray(pixels), 4))
    means = pixels.reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 1


def test_wide_pixels_are_taken_into_account() -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    pixels[:, 2:6] = 200  # twice as wide as high: the middle square is the middle half of the stored columns
    square = np.asarray(fit_square(Image.fromarray(pixels), 8, pixel_aspect=2.0))
    assert square.shape == (8, 8, 3) and square.min() > 170  # stretched by two, Lanczos rings


def test_a_size_is_applied_while_decoding(tmp_path: Path, write_mp4) -> None:
    path = write_mp4(tmp_path / "wide.mp4", [10, 200], [0, 40], size=(96, 64))
    assert decode_video(path).frames.shape == (2, 64, 96, 3)
    assert decode_video(path, 16).frames.shape == (2, 16, 16, 3)


def test_bytes_are_read_like_files(tmp_path: Path, write_mp4, write_webp) -> None:
    for path in (
        write_mp4(tmp_path / "a.mp4", LEVELS, [0, 40, 80, 120, 160]),
        write_webp(tmp_path / "a.webp", LEVELS, [50] * 5),
    ):
        from_bytes = decode_video(path.read_bytes(), name=path.name)
        assert np.array_equal(from_bytes.frames, decode_video(path).frames)


def test_a_text_file_named_mp4(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a video at all")
    with pytest.raises(InputError, match=r"cannot read .*notes\.mp4 as a video: .+; convert it"):
        decode_video(path)


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(VideoError, match="as a video"):
        decode_video(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_truncated_files(tmp_path: Path, write_webp, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    for path in (write_video(tmp_path / "a.mp4", noise, 24), write_video(tmp_path / "a.webp", noise, 24)):
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(VideoError):
            decode_video(path)


def test_a_zero_frame_file(tmp_path: Path) -> None:
    import av

    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError):
        decode_video(path)


def test_a_sound_file_has_no_video(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    with pytest.raises(VideoError, match="as a video"):
        decode_video(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        decode_video(tmp_path / "nothing.mp4")


def test_compositing_leaves_opaque_pictures_alone() -> None:
    picture = Image.new("RGB", (2, 2), (1, 2, 3))
    assert on_white(picture) is picture
