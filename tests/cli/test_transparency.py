"""Transparency goes along into gif and webp where frames are known, and is named where it cannot."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.cascade import Cascade
from inflate.cli.app import main
from inflate.data import decode_video
from inflate.data.animations import write_gif, write_webp
from inflate.data.transparency import Transparency, is_transparent
from inflate.data.writing import write_video
from tests.cascade.test_applications import Doubling
from tests.cli.test_applications import Repeating
from tests.data_writing.test_animations import read
from tests.models.tiny_family import tiny_cascade

SIDE = 16
COLOUR = (200, 40, 40)
GONE = "become white."


@pytest.fixture(autouse=True)
def cascade(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Cascade((*tiny_cascade().stages, Repeating(), Doubling()), device="cpu", keep_loaded=True)
    monkeypatch.setattr(Cascade, "from_pretrained", classmethod(lambda cls, *arguments, **more: made))


def clear_on_the_right(count: int = 3) -> np.ndarray:
    """Frames (F, 16, 16, 4), red on the left, with nothing on the right."""
    frames = np.zeros((count, SIDE, SIDE, 4), np.uint8)
    frames[:, :, : SIDE // 2] = (*COLOUR, 255)
    return frames


def source(path: Path) -> Path:
    """A video with transparency, of the suffix's format."""
    frames = clear_on_the_right()
    if path.suffix in (".gif", ".webp"):
        (write_gif if path.suffix == ".gif" else write_webp)(path, frames, [100] * 3)
    elif path.suffix in (".png", ".apng"):
        for number, frame in enumerate(frames):
            frame[0, number] = (0, 0, 0, 255)  # or Pillow would merge them
        pictures = [Image.fromarray(frame) for frame in frames]
        pictures[0].save(path, format="PNG", save_all=True, append_images=pictures[1:], duration=100)
    else:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libvpx-vp9", rate=10, options={"auto-alt-ref": "0"})
            stream.width = stream.height = SIDE
            stream.pix_fmt, stream.metadata["alpha_mode"] = "yuva420p", "1"
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="yuva420p")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return path


def run(*arguments: object) -> int:
    return main([*(str(one) for one in arguments), "--steps", "2", "--quiet"])


@pytest.mark.parametrize("into", [".gif", ".webp"])
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng", ".webm"])
def test_upscale_keeps_it_where_the_format_can(tmp_path: Path, capsys: Any, suffix: str, into: str) -> None:
    clip = source(tmp_path / f"in{suffix}")
    assert run("upscale", clip, "-o", tmp_path / f"out{into}") == 0
    frames, _ = read(tmp_path / f"out{into}")
    assert frames.shape == (3, 2 * SIDE, 2 * SIDE, 4) and GONE not in capsys.readouterr().err
    assert frames[:, :, :14, 3].min() > 240 and frames[:, :, 18:, 3].max() < 15
    assert np.abs(frames[:, 4:-4, 4:12, :3].astype(int) - COLOUR).mean() < 12


def test_interpolate_passes_evenly_from_frame_to_frame(tmp_path: Path) -> None:
    frames = clear_on_the_right(2)
    frames[1, ..., 3] = 255
    write_webp(tmp_path / "in.webp", frames, [100, 100])
    assert run("interpolate", tmp_path / "in.webp", "-o", tmp_path / "out.webp", "--frame-skip", 2) == 0
    made, _ = read(tmp_path / "out.webp")
    assert made[:, 8, -2, 3].tolist() == pytest.approx([0, 128, 255], abs=4) and made[:, 8, 2, 3].min() > 250


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", "in.gif", "-o", "out.mp4"],
        ["interpolate", "in.gif", "-o", "out.mp4", "--frame-skip", "2"],
        ["extend", "in.gif", "-o", "out.webp", "--frames", "1"],
        ["infill", "in.gif", "-o", "out.webp", "--missing", "1"],
        ["vary", "in.gif", "-o", "out.webp", "--frames", "2", "--until", "decoder"],
        ["animate", "in.png", "-o", "out.webp", "--frames", "2", "--frame-skip", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_cannot_go_along_is_said(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source(Path("in.gif"))
    Image.fromarray(clear_on_the_right()[0]).save("in.png")
    assert run(*arguments) == 0
    assert capsys.readouterr().err.count(f"Transparent parts of {arguments[1]} {GONE}") == 1
    if arguments[0] != "vary":  # which draws all of them
        assert decode_video(arguments[3]).frames[0, 4, -3].min() > 245


def test_opaque_files_need_no_words(tmp_path: Path, capsys: Any) -> None:
    frames = np.full((3, SIDE, SIDE, 3), 90, np.uint8)
    for suffix in (".gif", ".webp", ".mp4"):
        clip = write_video(tmp_path / f"in{suffix}", frames, 10)
        assert not is_transparent(clip) and Transparency.of(clip) is None
        assert run("upscale", clip, "-o", tmp_path / f"out{suffix}") == 0
    assert GONE not in capsys.readouterr().err


def test_on_white_colours_look_as_they_did() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (2, 8, 8), dtype=np.uint8)
    colours = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    share = alpha[..., None] / 255
    white = (colours * share + 255 * (1 - share)).round().astype(np.uint8)
    [made] = Transparency(alpha).put_back(iter([white]))
    assert np.array_equal(made[..., 3], alpha)
    again = made[..., :3] * share + 255 * (1 - share)
    assert np.abs(again - white)[alpha > 0].max() <= 1
