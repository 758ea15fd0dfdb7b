"""Colours that pictures and videos state by numbers are those that Chromium shows.

The levels are what Chromium 150 (Debian 12) draws of the same files on a canvas of sRGB.
"""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from inflate.data import decode_video
from inflate.data.decode import iterate_alpha
from tests.data.test_picture_colours import SWAPPED, everyway

SIDE = 16
GREY, RED, GREEN, BLUE = (55, 55, 55), (202, 53, 44), (96, 197, 65), (50, 60, 200)
Colour = tuple[int, int, int]
D65 = (0.3127, 0.3290)
SRGB, P3 = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06), (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)


def gamma(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chromaticity(primaries: Sequence[float]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *[round(one * 1e5) for one in primaries])


def code(primaries: int, transfer: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, 0, 1])


def png(path: Path, colour: Any, chunks: Sequence[tuple[bytes, bytes]], mode: str = "RGB", **options: Any) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, content in chunks:
        info.add(name, content)
    Image.new(mode, (SIDE, SIDE), colour).save(path, pnginfo=info, **options)
    return path


def avif(path: Path, pictures: list[Image.Image], primaries: int, transfer: int, **options: Any) -> Path:
    """Pillow writes the numbers of sRGB, or a profile alone; those of a second picture stand behind that."""
    file = io.BytesIO()
    options |= {"quality": 100, "subsampling": "4:4:4", "save_all": len(pictures) > 1}
    pictures[0].save(file, "AVIF", append_images=pictures[1:], **options)
    content = file.getvalue()
    usual, stated = b"colrnclx\0\x01\0\x0d", b"colrnclx" + struct.pack(">HH", primaries, transfer)
    assert (usual in content) != ("icc_profile" in options)
    path.write_bytes(content.replace(usual, stated) if usual in content else content + b"\0\0\0\x14free" + stated)
    return path


def agree(path: Path, wanted: Colour, rounding: int = 1) -> None:
    """By every way but Pillow's own opening, which does not hand out all that a file states."""
    seen = everyway(path)
    for number, colour in enumerate([*seen[:5], *seen[6:]]):
        assert np.abs(colour.astype(int) - wanted).max() <= rounding, (number, colour)


@pytest.mark.parametrize(
    ("chunks", "colour", "wanted"),
    [
        ([gamma(100000)], GREY, (128, 128, 128)),
        ([gamma(100000)], RED, (230, 126, 115)),
        ([gamma(55556)], GREEN, (115, 208, 82)),
        ([gamma(45455)], (5, 20, 55), (5, 20, 55)),  # what every writer says, and sRGB to browsers
        ([gamma(45455), chromaticity(SRGB)], RED, (203, 50, 40)),
        ([gamma(45455), chromaticity(P3)], RED, (221, 21, 23)),
        ([gamma(55556), chromaticity(PROPHOTO)], BLUE, (0, 78, 223)),
        ([chromaticity(P3)], RED, RED),  # without gAMA it says nothing
        ([gamma(0), chromaticity(SRGB)], RED, RED),
        ([(b"sRGB", b"\0"), gamma(100000), chromaticity(P3)], RED, RED),
        ([code(12, 13), (b"sRGB", b"\0"), gamma(100000)], RED, (220, 29, 30)),
        ([code(4, 13)], RED, (239, 40, 24)),
        ([code(5, 13)], GREEN, (88, 197, 69)),
        ([code(6, 13)], GREEN, (104, 194, 64)),
        ([code(7, 13)], BLUE, (55, 66, 201)),
        ([code(8, 13)], RED, (229, 25, 29)),
        ([code(9, 13)], RED, (250, 0, 31)),
        ([code(11, 13)], GREEN, (62, 200, 29)),
        ([code(12, 13)], GREEN, (36, 200, 28)),
        ([code(22, 13)], BLUE, (50, 71, 200)),
        ([code(1, 13)], RED, RED),
        ([code(2, 2)], RED, RED),
        ([code(1, 12)], RED, RED),  # a curve that is unknown here and there
        *[([code(1, one)], RED, (199, 42, 32)) for one in (1, 6, 11, 14, 15)],
        ([code(1, 4)], RED, (203, 50, 40)),
        ([code(1, 5)], RED, (191, 29, 21)),
        ([code(1, 7)], RED, (208, 71, 62)),
        ([code(1, 8)], GREY, (128, 128, 128)),
        ([code(1, 17)], RED, (203, 37, 28)),
    ],
)
def test_a_png_is_as_chromium_shows_it(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], colour: Colour, wanted: Colour
) -> None:
    agree(png(tmp_path / "a.png", colour, chunks), wanted)


@pytest.mark.parametrize(
    ("numbers", "colour", "wanted"),
    [
        ((12, 13), RED, (220, 29, 30)),
        ((12, 1), RED, (220, 29, 30)),  # a camera's curve stands for sRGB's here
        ((12, 2), GREEN, (34, 201, 25)),
        ((9, 14), BLUE, (0, 59, 207)),
        ((6, 6), RED, (197, 60, 43)),
        ((5, 13), GREEN, (88, 198, 68)),
        ((1, 1), RED, RED),
        ((2, 2), RED, RED),
        ((1, 8), GREY, (128, 128, 128)),
        ((1, 4), RED, (203, 50, 40)),
    ],
)
def test_an_avif_is_as_chromium_shows_it(
    tmp_path: Path, numbers: tuple[int, int], colour: Colour, wanted: Colour
) -> None:
    agree(avif(tmp_path / "a.avif", [Image.new("RGB", (SIDE, SIDE), colour)], *numbers), wanted, 2)


@pytest.mark.parametrize(("mode", "level"), [("L", 55), ("LA", (55, 255)), ("I;16", 55 * 257), ("P", 1)])
@pytest.mark.parametrize("chunk", [gamma(100000), code(1, 8), code(12, 8)])
def test_greys_and_palettes_have_their_curve(tmp_path: Path, mode: str, level: Any, chunk: tuple[bytes, bytes]) -> None:
    if mode == "P":
        info = PngImagePlugin.PngInfo()
        info.add(*chunk)
        picture = Image.new("P", (SIDE, SIDE), level)
        picture.putpalette([0, 0, 0, *GREY])
        picture.save(tmp_path / "a.png", pnginfo=info)
    else:
        png(tmp_path / "a.png", level, [chunk], mode)
    agree(tmp_path / "a.png", (128, 128, 128))


def test_of_two_statements_that_which_browsers_take(tmp_path: Path) -> None:
    """PNG: cICP, then the profile, then sRGB, then gAMA and cHRM; AVIF: the profile, then the numbers."""
    swapped, srgb = (24, 220, 24), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    agree(png(tmp_path / "a.png", RED, [code(12, 13)], icc_profile=SWAPPED), (220, 29, 30))
    agree(png(tmp_path / "b.png", (220, 30, 30), [gamma(100000)], icc_profile=SWAPPED), swapped, 3)
    agree(png(tmp_path / "c.png", RED, [gamma(100000)], icc_profile=srgb), RED)
    agree(avif(tmp_path / "a.avif", [Image.new("RGB", (SIDE, SIDE), RED)], 12, 13, icc_profile=srgb), RED, 2)


def test_animations_have_their_numbers_and_alpha(tmp_path: Path) -> None:
    pictures = [Image.new("RGBA", (SIDE, SIDE), (*colour, 128)) for colour in (RED, GREEN)]
    info = PngImagePlugin.PngInfo()
    info.add(*code(12, 13))
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=100, pnginfo=info)
    avif(tmp_path / "a.avif", pictures, 12, 13, duration=100)
    wanted = (255 * 127 + 128 * np.array([(220, 29, 30), (36, 200, 28)])) / 255
    for name in ("a.png", "a.avif"):
        frames, alphas = decode_video(tmp_path / name).frames, list(iterate_alpha(tmp_path / name))
        assert np.abs(frames[:, 0, 0] - wanted).max() <= 3 and all(abs(int(one[0, 0]) - 128) <= 1 for one in alphas)


@pytest.mark.parametrize(
    ("primaries", "colour", "wanted"),
    [(12, RED, (220, 29, 30)), (9, GREEN, (0, 206, 3)), (11, BLUE, (47, 59, 208)), (1, RED, RED), (6, RED, RED)],
)
def test_wide_colours_of_a_video_are_brought_to_bt709(
    tmp_path: Path, primaries: int, colour: Colour, wanted: Colour
) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv444p", {"crf": "1", "threads": "1"}
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = primaries, 1, 1, 1
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), "rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=1)
        frame.pts, frame.time_base, frame.color_primaries, frame.colorspace = 0, Fraction(1, 8), primaries, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(decode_video(path).frames.astype(int) - wanted).max() <= 3
