"""What strangers hand in is refused in one sentence, cheaply, and without naming the server's paths."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from inflate.data import decode, decode_video
from inflate.data.reading import frames
from inflate.data.writing import write_video
from inflate.errors import InputError
from inflate.page import uploads, wishes
from inflate.page.uploads import (
    check_picture,
    check_prompt,
    check_video,
    cut_for_upscaling,
    fit_for_upscaling,
    left_out,
    one_frame_of,
)
from inflate.page.wishes import Settings
from inflate.video import Video
from tests.data_writing.test_times_and_sound import with_sound
from tests.models.tiny_family import tiny_cascade


@pytest.mark.parametrize("text", ["party popper", "  café   au lait ", "7 rockets!", "A"])
def test_prompts_that_are_fine(text: str) -> None:
    assert check_prompt(text) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The prompt is empty"),
        (None, "The prompt is empty"),
        (" \n\t ", "The prompt is empty"),
        ("ракета", "write the prompt in English"),
        ("打ち上げ", "write the prompt in English"),
        ("صاروخ fire", "write the prompt in English"),
        ("123 !!", "write the prompt in English"),
        ("a" * 301, "The prompt has 301 letters"),
    ],
)
def test_prompts_that_are_not(text: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_prompt(text)


def test_a_picture_is_made_opaque(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    picture = check_picture(tmp_path / "clear.png")
    assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_short_video_is_decoded_and_a_large_one_made_small_enough_to_upscale(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", np.zeros((5, 16, 18, 3), np.uint8), 10)
    video = check_video(path)
    assert video.num_frames == 5 and video.fps == pytest.approx(10)
    assert fit_for_upscaling(video).frames.shape == (5, 16, 18, 3)
    large = fit_for_upscaling(Video(np.full((130, 512, 300, 3), 9, np.uint8), 10))
    assert large.frames.shape == (120, 256, 150, 3) and np.all(large.frames == 9)


def huge_picture(folder: Path) -> Path:
    Image.new("1", (20_000, 40)).save(folder / "huge.png")
    return folder / "huge.png"


def long_video(folder: Path) -> Path:
    path = folder / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width = stream.height = 16
        for seconds in (0, 3 * 3600):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts = seconds
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_what_would_decode_to_too_much_is_refused_before_a_pixel_is(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(
        tmp_path / f"a.{suffix}", np.arange(6, dtype=np.uint8).repeat(32 * 32 * 3).reshape(6, 32, 32, 3) * 40, 10
    )
    assert check_video(path).num_frames == 6
    monkeypatch.setattr(uploads, "MAX_VIDEO_PIXELS", 5 * 32 * 32)
    monkeypatch.setattr(frames, "shown_frames", None)  # whoever decodes, fails
    monkeypatch.setattr(decode, "shown_frames", None)
    with pytest.raises(InputError, match=f"a.{suffix} has 6 frames of 32 x 32 pixels: cut it or make it smaller"):
        check_video(path)
    monkeypatch.setattr(uploads, "MAX_VIDEO_SIDE", 31)
    with pytest.raises(InputError, match=f"a.{suffix} has 32 x 32 pixels: make it smaller, at most 31 a side"):
        check_video(path)


def test_no_more_is_kept_than_a_network_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", np.full((5, 32, 64, 3), 200, np.uint8), 10)
    Image.new("RGB", (64, 32), (200, 0, 0)).save(tmp_path / "a.png")
    monkeypatch.setattr(uploads, "KEPT_VIDEO_SIDE", 32)
    monkeypatch.setattr(uploads, "KEPT_PICTURE_SIDE", 16)
    assert check_video(path).frames.shape == (5, 16, 32, 3)
    assert check_picture(tmp_path / "a.png").size == (16, 8)
    monkeypatch.setattr(uploads, "MAX_PICTURE_PIXELS", 64 * 32 - 1)
    with pytest.raises(InputError, match=r"a\.png has 64 x 32 pixels: make it smaller"):
        check_picture(tmp_path / "a.png")


def text_as(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text("neither picture nor video")
        return folder / name

    return write


@pytest.mark.parametrize(
    ("check", "make", "sentence"),
    [
        (check_picture, lambda folder: None, "upload one first"),
        (check_video, lambda folder: None, "upload one first"),
        (check_picture, huge_picture, r"huge.png has 20000 x 40 pixels: make it smaller"),
        (check_picture, text_as("a.png"), "a.png cannot be used because it is a text file: upload a png"),
        (check_video, text_as("a.mp4"), "cannot read a.mp4 as a video"),
        (check_video, text_as("a.gif"), "cannot read a.gif as a video"),
        (check_video, long_video, r"long.mp4 lasts 180 minutes .* cut it to at most 20 s"),
    ],
)
def test_bad_uploads_are_one_sentence(
    check: Callable[[Path | None], object], make: Callable[[Path], Path | None], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        check(make(tmp_path))
    assert str(tmp_path) not in str(caught.value)


def test_what_of_a_video_is_left_out_is_said(tmp_path: Path) -> None:
    frames = np.zeros((4, 16, 18, 4), np.uint8)
    even = write_video(tmp_path / "even.mp4", frames[..., :3] + 99, 10)
    clear = write_video(tmp_path / "clear.webp", frames, 10, spans=[(0, 0.1), (0.1, 0.5), (0.5, 0.6), (0.6, 0.7)])
    heard = with_sound(tmp_path / "heard.mp4", "aac")
    assert left_out(even) == "" and left_out(heard) == "Not kept from heard.mp4: its sound."
    assert left_out(clear) == "Not kept from clear.webp: its transparency, the uneven times of its frames."
    large = write_video(tmp_path / "large.mp4", np.zeros((2, 16, 300, 3), np.uint8), 10)
    assert cut_for_upscaling(even) == ""
    assert cut_for_upscaling(large).startswith("Made of at most 120 frames of 256 px: large.mp4 has 2 of 300 x 16 px")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif", ".tiff"])
def test_an_animation_for_a_picture_is_told_of(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.new("RGB", (16, 16), (80 * number, 9, 9)) for number in range(3)]
    cascade, plain = tiny_cascade(), Settings(8.0, 4, 5, 2.0, 0)
    for count in (3, 1):
        path = tmp_path / f"{count}{suffix}"
        pictures[0].save(path, save_all=count > 1, append_images=pictures[1:count])
        told = f"Of 3{suffix} only the first of its 3 frames is used." if count == 3 else ""
        assert one_frame_of(path) == told
        assert wishes.animate(cascade, "m", str(path), plain).left_out() == told
        assert wishes.between(cascade, "m", str(path), str(path), plain).left_out() == f"{told} {told}".strip()


def test_the_other_pictures_of_a_photo_are_no_frames(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), (200 * number, 9, 9)) for number in range(2)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    assert one_frame_of(tmp_path / "a.jpg") == "" and len(decode_video(tmp_path / "a.jpg").frames) == 1
