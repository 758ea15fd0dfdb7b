"""Pictures and animations have a browser's colours: ICC profiles, HDR, what a gif or an APNG leaves uncovered."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from PIL.GifImagePlugin import getdata, getheader

from inflate.cascade.inputs import picture_frames
from inflate.cli.applications import read_picture
from inflate.data import decode_video, iterate_frames, video_facts
from inflate.data.clips import pictures as clips
from inflate.data.decode import frame_times, iterate_alpha, stated_size
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import shown_frames
from inflate.data.reading.hdr import linear_light
from inflate.data.reading.pictures import as_looked_at
from inflate.page.uploads import check_picture
from tests.data.test_as_shown import pq, sdr

SIDE = 16
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04)."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79), **tags}
    tags |= {b"wtpt": xyz(0.9642, 1, 0.8249), b"cprt": b"text" + bytes(4) + b"none"}
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", at + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02100000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(0.9642, 1, 0.8249)[8:]
    return head.ljust(128, b"\0") + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def of_primaries(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]) -> bytes:
    curves = {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", b"XYZ ", {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue), **curves})


def of_ink() -> bytes:
    """Cyan, magenta and yellow, and any of them together, are a grey of L* 50; key is black, and no ink white."""
    nodes = b"".join(bytes([lightness, 128, 128]) for lightness in [255, 0, *[128, 0] * 7])
    unit = b"".join(struct.pack(">i", 65536 * one) for one in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    straight = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + straight * 4 + nodes + straight * 3
    return profile(b"CMYK", b"Lab ", {b"A2B0": table})


P3 = of_primaries((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SWAPPED = of_primaries((0.38515, 0.71687, 0.09708), (0.43607, 0.22249, 0.01392), (0.14307, 0.06061, 0.71410))
LINEAR_GREY = profile(b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def everyway(path: Path) -> list[np.ndarray]:
    """The first pixel of a still by every way that one comes in."""
    numbered = Footage(path.stem, path.parent, path.suffix, pictures=(path.name,), rate=8.0)
    with Image.open(path) as image:
        made = picture_frames(image, None)[0, :, 0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    twice = picture_frames(read_picture(path), None)[0, :, 0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    seen = [decode_video(path).frames[0], next(iterate_frames(path))[0], next(shown_frames(numbered)).pixels()]
    seen += [np.asarray(check_picture(path)), np.asarray(read_picture(path)), made, twice]
    return [picture[0, 0] for picture in [*seen, clips.read_picture(Footage(path.name, path, path.suffix))]]


@pytest.mark.parametrize(
    ("mode", "level", "of", "suffixes", "wanted"),
    [
        # Display P3's (200, 56, 48), by its published matrix to sRGB's.
        ("RGB", (200, 56, 48), P3, ".png .jpg .webp .tiff .avif", (219, 29, 31)),
        ("P", (200, 56, 48), P3, ".png", (219, 29, 31)),
        ("RGB", (30, 220, 30), SWAPPED, ".png .jpg .webp", (220, 24, 24)),
        ("RGB", (30, 220, 30), b"damaged", ".png .jpg", (30, 220, 30)),
        ("RGB", (30, 220, 30), SWAPPED[:300], ".png .jpg", (30, 220, 30)),
        ("RGB", (30, 220, 30), LINEAR_GREY, ".png .jpg", (30, 220, 30)),
        ("L", 55, LINEAR_GREY, ".png .jpg .tiff", (128, 128, 128)),  # sRGB's curve of 55/255 is 0.5
        ("L", 55, P3, ".png", (55, 55, 55)),
        ("LA", (55, 255), LINEAR_GREY, ".png", (128, 128, 128)),
        ("CMYK", (255, 0, 0, 0), of_ink(), ".jpg .tiff", (119, 119, 119)),  # L* 50
        ("CMYK", (0, 0, 0, 0), of_ink(), ".jpg .tiff", WHITE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_profiles_are_converted_to_srgb(
    tmp_path: Path, mode: str, level: Any, of: bytes, suffixes: str, wanted: tuple[int, ...]
) -> None:
    picture = Image.new("RGB" if mode == "P" else mode, (SIDE, SIDE), level)
    for suffix in suffixes.split():
        path = tmp_path / f"a{suffix}"
        lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        (picture.quantize(4) if mode == "P" else picture).save(path, icc_profile=of, quality=100, **lossless)
        for seen in everyway(path):
            assert np.abs(seen - np.array(wanted)).max() <= 3, (suffix, seen)


def test_a_deep_grey_has_its_profile(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 55 * 257, np.uint16)).save(tmp_path / "a.png", icc_profile=LINEAR_GREY)
    assert np.abs(decode_video(tmp_path / "a.png").frames.astype(int) - 128).max() <= 1


def test_pixels_of_srgb_stay_as_they_are(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=SRGB)
    assert np.array_equal(decode_video(tmp_path / "a.png").frames[0], levels)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".avif"])
def test_animations_have_their_profile_and_alpha(tmp_path: Path, suffix: str) -> None:
    """Half transparent, each frame of its own colour, in P3."""
    path, pictures = (
        tmp_path / f"a{suffix}",
        [Image.new("RGBA", (SIDE, SIDE), (200, 56, level, 128)) for level in (48, 90)],
    )
    lossless: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 100}
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "duration": 100, **lossless}
    pictures[0].save(path, icc_profile=P3, **options)
    frames, alphas = decode_video(path).frames, list(iterate_alpha(path))
    assert len(frames) == len(alphas) == 2 and all(np.abs(alpha.astype(int) - 128).max() <= 1 for alpha in alphas)
    assert np.abs(frames[0, 0, 0] - (255 * 127 + 128 * np.array([219, 29, 31])) / 255).max() <= 4


@pytest.mark.parametrize("suffix", [".avif", ".png"])
@pytest.mark.parametrize("nits", [0.5, 10, 100, 203, 1000])
def test_a_still_of_pq_is_brought_to_sdr(tmp_path: Path, nits: float, suffix: str) -> None:
    """As HDR videos are; Pillow hands out eight of its bits."""
    file, level, path = io.BytesIO(), round(255 * pq(nits)), tmp_path / f"a{suffix}"
    if suffix == ".avif":
        Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(file, "AVIF", quality=100)
        head, srgb, rest = file.getvalue().partition(b"colrnclx\0\x01\0\x0d")
        assert srgb
        path.write_bytes(head + b"colrnclx\0\x09\0\x10" + rest)
    else:
        info = PngImagePlugin.PngInfo()
        info.add(b"cICP", bytes([9, 16, 0, 1]))
        Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(path, pnginfo=info, icc_profile=SWAPPED)
    seen = np.stack(everyway(path)[:5])
    # Within what the next levels of eight bits show.
    light = linear_light("PQ")[257 * np.array([level - 1, level + 1])]
    assert sdr(light[0]) - 1 <= seen.min() and seen.max() <= sdr(light[1]) + 1


# Gifs

Step = tuple[int, tuple[int, int, int, int], int, int]  # colour's number, box, disposal, seconds/100
COLOURS = [*RED, *BLUE, 9, 9, 9, 0, 200, 0]
CLEAR = 2  # the number of the transparent colour


def write_gif(path: Path, steps: list[Step], transparent: bool) -> None:
    """Tiles of one colour on a canvas of ``SIDE``."""
    canvas = Image.new("P", (SIDE, SIDE))
    canvas.putpalette(COLOURS)
    info: dict[str, Any] = {"transparency": CLEAR} if transparent else {}
    with path.open("wb") as file:
        file.writelines(getheader(canvas, info={"loop": 0, "background": 3})[0])
        for colour, (left, top, right, bottom), disposal, duration in steps:
            tile = Image.new("P", (right - left, bottom - top), colour)
            tile.putpalette(COLOURS)
            file.writelines(getdata(tile, (left, top), duration=10 * duration, disposal=disposal, **info))
        file.write(b";")


WHOLE, CORNER, MIDDLE = (0, 0, SIDE, SIDE), (0, 0, 4, 4), (4, 4, 12, 12)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        # What is seen at (1, 1), (6, 6) and (14, 14) of each frame.
        ([(0, WHOLE, 2, 10), (1, CORNER, 1, 10)], [(RED, RED, RED), (BLUE, WHITE, WHITE)]),
        ([(0, WHOLE, 1, 10), (1, MIDDLE, 2, 10), (1, CORNER, 1, 10)],
         [(RED, RED, RED), (RED, BLUE, RED), (BLUE, WHITE, RED)]),
        ([(0, WHOLE, 1, 10), (1, MIDDLE, 3, 10), (1, CORNER, 1, 10)],
         [(RED, RED, RED), (RED, BLUE, RED), (BLUE, RED, RED)]),
        ([(0, MIDDLE, 1, 10), (1, CORNER, 1, 20)], [(WHITE, RED, WHITE), (BLUE, RED, WHITE)]),
        ([(0, MIDDLE, 3, 10), (1, CORNER, 1, 20)], [(WHITE, RED, WHITE), (BLUE, WHITE, WHITE)]),
        ([(0, MIDDLE, 1, 10)], [(WHITE, RED, WHITE)]),
    ],
    ids=["cleared", "part cleared", "restored", "small first", "small first restored", "small still"],
)  # fmt: skip
def test_what_a_gif_leaves_uncovered_is_transparent(
    tmp_path: Path, steps: list[Step], wanted: list[tuple[Any, ...]], transparent: bool
) -> None:
    path = tmp_path / "a.gif"
    write_gif(path, steps, transparent)
    video, alphas = decode_video(path), list(iterate_alpha(path))
    seen = [tuple(tuple(int(v) for v in frame[at, at]) for at in (1, 6, 14)) for frame in video.frames]
    opaque = [tuple(int(alpha[at, at]) for at in (1, 6, 14)) for alpha in alphas]
    assert seen == wanted
    assert opaque == [tuple(0 if colour == WHITE else 255 for colour in colours) for colours in wanted]
    assert frame_times(path).duration == pytest.approx(sum(step[3] for step in steps) / 100)
    assert stated_size(path) == (SIDE, SIDE, len(steps)) and video.loop == (len(steps) > 1)
    assert np.array_equal(np.asarray(read_picture(path)), video.frames[0])
    assert np.array_equal(np.asarray(check_picture(path)), video.frames[0])


def test_a_gif_without_a_frame_or_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    noise.save(path, save_all=True, append_images=[noise.rotate(90)])
    content = path.read_bytes()
    for damaged in (content[:20], content[:12], content[: len(content) // 3], content[:-200]):
        with pytest.raises(ValueError, match="cannot read"):
            decode_video(damaged, name="a.gif")


# APNG


@pytest.mark.parametrize("count", [1, 3])
def test_the_default_image_of_an_apng_is_no_frame(tmp_path: Path, count: int) -> None:
    """Nor is it what frames that cover a part are drawn on."""
    path, half = tmp_path / "a.png", Image.new("RGBA", (SIDE, SIDE))
    half.paste((*BLUE, 255), (0, 0, SIDE // 2, SIDE))
    frames = [half, Image.new("RGBA", (SIDE, SIDE), (*RED, 255)), half][:count]
    options: dict[str, Any] = {"default_image": True, "append_images": frames, "duration": 80, "blend": 1}
    Image.new("RGBA", (SIDE, SIDE), (0, 200, 0, 255)).save(path, save_all=True, **options)
    video = decode_video(path)
    assert len(video.frames) == video_facts(path).num_frames == stated_size(path)[2] == count
    assert video.timestamps == pytest.approx(0.08 * np.arange(count)) and video.duration == pytest.approx(0.08 * count)
    assert tuple(video.frames[0, 0, 0]) == BLUE and tuple(video.frames[0, 0, -1]) == WHITE
    assert video.loop == (count > 1)


def apng(path: Path, mode: str, default: bool = True) -> Path:
    """A green default image, then two frames: blue in the left half alone, and red."""
    frames = [Image.new(mode, (SIDE, SIDE), (*colour, 255)[: len(mode)]) for colour in (BLUE, RED)]
    if mode == "RGBA":
        frames[0].paste(0, (SIDE // 2, 0, SIDE, SIDE))
    green = Image.new(mode, (SIDE, SIDE), (0, 200, 0, 255)[: len(mode)])
    if not default:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=80)
    else:
        options: dict[str, Any] = {"default_image": True, "append_images": frames, "duration": 80, "blend": 1}
        green.save(path, save_all=True, **options)
    return path


@pytest.mark.parametrize(("mode", "right"), [("RGBA", WHITE), ("RGB", BLUE)])
@pytest.mark.parametrize("default", [True, False])
def test_a_still_of_an_apng_is_its_first_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, right: tuple[int, ...], default: bool
) -> None:
    """As browsers show it, and the reader of videos, whichever reader of stills it goes through."""
    path = apng(tmp_path / "a.png", mode, default)
    first = Image.fromarray(decode_video(path).frames[0])
    with Image.open(path) as opened:
        stills = [as_looked_at(opened), read_picture(path), check_picture(path)]
        # A picture that is handed over stays where it was.
        assert opened.tell() == 0 and opened.convert("RGB").getpixel((0, 0)) == ((0, 200, 0) if default else BLUE)
    stills.append(Image.fromarray(clips.read_picture(Footage("a.png", path, ".png"))))
    for still in [first, *stills]:
        assert (still.getpixel((0, 0)), still.getpixel((SIDE - 1, 0))) == (BLUE, right)
        assert np.array_equal(np.asarray(still), np.asarray(first))
    assert ("become white" in capsys.readouterr().err) == (mode == "RGBA")
