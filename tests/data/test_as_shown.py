"""Whole files, chunks and facts agree with what a player shows: order, number, times, shape, orientation, colours."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from inflate.cascade.inputs import picture_frames
from inflate.cli.applications import read_picture
from inflate.data import decode_video, frame_times, iterate_frames, video_facts
from inflate.data.reading.hdr import linear_light, to_sdr
from inflate.data.reading.pictures import VideoError
from inflate.page.uploads import check_picture
from tests.data_clips.conftest import write_clip  # noqa: F401  # a fixture
from tests.data_clips.test_clip_frames import MATRICES, cut_without_encoding, ramp, turned

WriteClip = Callable[..., Path]
DEFAULT, COVER = int(Disposition.default), int(Disposition.attached_pic)


def numbers(frames: np.ndarray) -> list[int]:
    """Numbers of ``ramp``'s frames, by their levels."""
    return [round((float(frame.mean()) - 20) / 4) for frame in frames]


def agree(path: Path, wanted: list[int], seconds: float) -> None:
    """Decoded whole, in chunks, and counted, a file shows ``wanted`` frames for so long."""
    video, facts = decode_video(path), video_facts(path)
    chunks = np.concatenate(list(iterate_frames(path, 7)))
    assert numbers(video.frames) == numbers(chunks) == wanted
    assert facts.num_frames == len(wanted)
    assert facts.duration == pytest.approx(seconds, abs=0.05) and video.duration == pytest.approx(seconds, abs=0.05)
    assert facts.fps == pytest.approx(video.fps, rel=0.03)
    assert (facts.height, facts.width) == video.frames.shape[1:3] == chunks.shape[1:3]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".avi"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_every_frame_once_and_in_order(write_clip: WriteClip, tmp_path: Path, suffix: str, b_frames: str) -> None:  # noqa: F811
    path = write_clip(tmp_path / f"a{suffix}", ramp, 40, bf=b_frames, g="10")
    agree(path, list(range(40)), 40 / 24)


def test_a_trimmed_file_is_what_is_left(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    whole = write_clip(tmp_path / "whole.mp4", ramp, 50, g="1000", bf="0")
    cut_without_encoding(whole, tmp_path / "cut.mp4", 35, 24)
    agree(tmp_path / "cut.mp4", list(range(35, 50)), 15 / 24)


def test_a_recording_whose_clock_starts_again(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    part = write_clip(tmp_path / "part.ts", ramp, 24, bf="0").read_bytes()
    (tmp_path / "whole.ts").write_bytes(part + part)
    agree(tmp_path / "whole.ts", [*range(24), *range(24)], 2.0)


def test_a_variable_rate(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    starts = [40 * i for i in range(10)] + [4400 + 40 * i for i in range(10)]
    for suffix in (".mp4", ".mkv"):
        path = write_clip(tmp_path / f"a{suffix}", ramp, 20, rate=25, starts_ms=starts)
        agree(path, list(range(20)), 4.8)
        assert decode_video(path).timestamps == pytest.approx(np.array(starts) / 1000, abs=1e-3)


@pytest.mark.parametrize("twice", [4, 11, 19])
def test_a_time_that_two_frames_have(write_clip: WriteClip, tmp_path: Path, twice: int) -> None:  # noqa: F811
    """The second of them is never shown, and all others stay at their times."""
    starts = [0, 33, 66, 100, 1000, 1033, 1500, 2000, 2500, 2533, 2566, 4000, *range(4100, 4900, 100)]
    plain = write_clip(tmp_path / "plain.mkv", ramp, 20, rate=30, starts_ms=starts, bf="0")
    path = tmp_path / "twice.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        packets[twice].pts = packets[twice].dts = packets[twice - 1].pts
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    left = [number for number in range(20) if number != twice]
    agree(path, left, starts[left[-1]] / 1000 + 1 / 30)
    kept = [starts[number] / 1000 for number in left]
    assert decode_video(path).timestamps == pytest.approx(kept, abs=1e-3)
    assert [start for start, _ in frame_times(path).spans] == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize(
    ("sides", "said", "shown"),
    [
        ((32, 64), (0, DEFAULT), 64),
        ((64, 32), (0, DEFAULT), 32),
        ((32, 64), (DEFAULT, 0), 32),
        ((32, 64), (DEFAULT, DEFAULT), 32),
        ((64, 32), (0, 0), 64),
        ((64, 32), (COVER, DEFAULT), 32),
        ((32, 64), (DEFAULT, COVER), 32),
    ],
)
def test_of_several_video_tracks_that_which_players_show(
    tmp_path: Path, sides: tuple[int, int], said: tuple[int, int], shown: int
) -> None:
    path = tmp_path / ("tracks.mp4" if COVER in said else "tracks.nut")  # which holds no covers
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("mjpeg", rate=10) for _ in sides]
        for stream, side, flags in zip(streams, sides, said, strict=True):
            stream.width, stream.height, stream.pix_fmt, stream.disposition = side, side, "yuvj420p", flags
        for number in range(3):
            for stream, side in zip(streams, sides, strict=True):
                picture = av.VideoFrame.from_ndarray(np.full((side, side, 3), 20 * number, np.uint8), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert sorted(int(stream.disposition) for stream in container.streams.video) == sorted(said)
    assert decode_video(path).frames.shape[1:3] == (shown, shown)
    assert (video_facts(path).width, video_facts(path).num_frames) == (shown, 3)


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    for read in (decode_video, video_facts, frame_times, lambda path: next(iterate_frames(path))):
        with pytest.raises(VideoError, match=r"it is a folder, and .* here; name a video file$"):
            read(tmp_path)


def test_pixels_that_are_not_square(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    """PAL in 16:9: a disc is round, and nothing is cut off."""

    def disc(_: int) -> np.ndarray:
        down, right = np.mgrid[:64, :64]
        # Half as wide in stored pixels, which are shown twice as wide as high.
        inside = ((right - 31.5) * 2) ** 2 + (down - 31.5) ** 2 < 24**2
        return np.where(inside[..., None], 235, 16).astype(np.uint8).repeat(3, axis=2)

    path = write_clip(tmp_path / "wide.mp4", disc, 4, aspect=Fraction(2, 1))
    frames = decode_video(path).frames
    assert frames.shape[1:3] == (64, 128) and (video_facts(path).height, video_facts(path).width) == (64, 128)
    bright = frames[0, ..., 0] > 128
    assert abs(int(bright.any(axis=0).sum()) - int(bright.any(axis=1).sum())) <= 2
    assert np.array_equal(np.concatenate(list(iterate_frames(path))), frames)


@pytest.mark.parametrize("name", MATRICES)
def test_phones_held_in_all_ways(write_clip: WriteClip, tmp_path: Path, name: str) -> None:  # noqa: F811
    path, expected = turned(write_clip, tmp_path, name)
    frame = decode_video(path).frames[0]
    assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).max() < 12
    facts = video_facts(path)
    assert (facts.height, facts.width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_photos_are_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """EXIF's eight orientations, for every way that a picture comes in."""
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, 32:], upright[24:, :32], upright[24:, 32:] = 80, 160, 240
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    undo |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    stored.save(path, exif=exif, quality=100)
    with Image.open(path) as image:
        made = picture_frames(image, None)[0, :, 0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    typed = np.asarray(read_picture(path).convert("RGB"))
    for seen in (decode_video(path).frames[0], np.asarray(check_picture(path)), typed, made):
        assert seen.shape == upright.shape and np.abs(seen.astype(int) - upright).mean() < 3


def test_a_gif_in_a_hurry_is_shown_as_browsers_show_it(tmp_path: Path) -> None:
    pictures = [Image.new("L", (8, 8), value) for value in (0, 90, 180, 255)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[10, 20, 10, 50], loop=0)
    assert decode_video(tmp_path / "a.gif").timestamps == pytest.approx([0, 0.1, 0.12, 0.22])


def test_an_animated_avif_has_all_its_frames(tmp_path: Path) -> None:
    pictures = [Image.fromarray(ramp(8 * number)) for number in range(4)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=[100, 200, 100, 300])
    video = decode_video(tmp_path / "a.avif")
    assert numbers(video.frames) == [0, 8, 16, 24]
    assert video.timestamps == pytest.approx([0, 0.1, 0.3, 0.4]) and video.duration == pytest.approx(0.7)


@pytest.mark.parametrize("kind", ["I;16", "I", "F"])
def test_deep_greys_keep_their_shades(tmp_path: Path, kind: str) -> None:
    """A depth map or a scan of 16 bits, which Pillow by itself shows white."""
    shades = np.linspace(0, 1, 256)[None].repeat(8, 0)
    if kind == "F":
        Image.fromarray(shades.astype(np.float32), "F").save(tmp_path / "deep.tiff")
        with Image.open(tmp_path / "deep.tiff") as image:
            made = np.asarray(check_picture(tmp_path / "deep.tiff"))
            assert image.mode == "F"
    else:
        values = Image.fromarray(np.round(shades * 65535).astype(np.uint16))
        name = "deep.png" if kind == "I;16" else "deep.tiff"
        (values if kind == "I;16" else values.convert("I")).save(tmp_path / name)
        made = np.asarray(check_picture(tmp_path / name))
        assert kind == "I" or np.array_equal(decode_video(tmp_path / name).frames[0], made)
    assert np.abs(made[..., 0].astype(int) - np.arange(256)).max() <= 1 and np.ptp(made, axis=2).max() == 0


# HDR


def encode_hdr(path: Path, signal: float, curve: int) -> Path:
    """A flat grey of ``signal`` in [0, 1], ten bits, BT.2020."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p10le", {"crf": "1", "threads": "1"}
        for name, value in (("color_primaries", 9), ("color_trc", curve), ("colorspace", 9), ("color_range", 1)):
            setattr(stream.codec_context, name, value)
        for number in range(4):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, level in zip(frame.planes, (64 + 876 * signal, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(level), np.uint16).tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 8)
            frame.color_trc, frame.color_primaries, frame.colorspace = curve, 9, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pq(nits: float) -> float:
    """SMPTE ST 2084's inverse: the signal of so many nits."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = (nits / 10_000) ** m1
    return ((c1 + c2 * root) / (1 + c3 * root)) ** m2


def sdr(light: float) -> float:
    """Level of grey ``light`` in reference whites, by the rule of ``inflate.data.reading.hdr``."""
    kept = light if light <= 0.75 else 1 - 0.25 * np.exp(-(light - 0.75) / 0.25)
    return 255 * kept ** (1 / 2.4)


@pytest.mark.parametrize("nits", [0.5, 10, 100, 203, 1000])
def test_pq_is_brought_to_sdr(tmp_path: Path, nits: float) -> None:
    frames = decode_video(encode_hdr(tmp_path / "hdr.mp4", pq(nits), 16)).frames
    assert np.abs(frames.astype(float) - sdr(nits / 203)).max() < 4


@pytest.mark.parametrize("signal", [0.1, 0.5, 0.75])
def test_hlg_is_brought_to_sdr(tmp_path: Path, signal: float) -> None:
    scene = signal**2 / 3 if signal <= 0.5 else (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    frames = decode_video(encode_hdr(tmp_path / "hdr.mp4", signal, 18)).frames
    assert np.abs(frames.astype(float) - sdr(1000 / 203 * scene**1.2)).max() < 4


def test_the_curves_are_those_of_the_standards() -> None:
    """BT.2100: PQ's signal 1 is 10,000 nits, HLG's half is a twelfth of the scene's light, its one all of it."""
    assert float(linear_light("PQ")[65535]) == pytest.approx(10_000 / 203, rel=1e-6)
    assert float(linear_light("PQ")[round(pq(100) * 65535)]) == pytest.approx(100 / 203, rel=1e-3)
    assert float(linear_light("HLG")[32768]) == pytest.approx(1 / 12, rel=1e-3)
    assert float(linear_light("HLG")[65535]) == pytest.approx(1, rel=1e-4)
    for curve in ("PQ", "HLG"):  # brighter never comes out darker, and grey stays grey
        greys = to_sdr(np.arange(65536, dtype=np.uint16)[None, ::16, None].repeat(3, 2), curve)[0].astype(int)
        assert (np.diff(greys[:, 0]) >= 0).all() and np.ptp(greys, axis=1).max() <= 1


def test_bytes_are_read_as_the_file_they_are(write_clip: WriteClip, tmp_path: Path) -> None:  # noqa: F811
    path = write_clip(tmp_path / "a.avi", ramp, 12, bf="2")
    data = io.BytesIO(path.read_bytes()).getvalue()
    assert numbers(decode_video(data, name="a.avi").frames) == list(range(12))
    assert video_facts(data, "a.avi").num_frames == 12


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_bare_stream_plays_at_the_rate_that_its_header_states(codec: str, tmp_path: Path) -> None:
    """FFmpeg has no times for it, and 25 as a mean rate whatever the header says; its command goes by the header."""
    name, rate = {"libx264": "h264", "libx265": "hevc", "mpeg2video": "mpeg2video"}[codec], 24 if "2v" in codec else 12
    path = tmp_path / f"camera.{name}"
    with av.open(str(path), "w", format=name) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            picture = np.full((48, 64, 3), 40 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode())
    facts = video_facts(path)
    assert facts.num_frames == len(decode_video(path).frames) == 6 and facts.fps == pytest.approx(rate)
    assert frame_times(path).spans == [pytest.approx((number / rate, (number + 1) / rate)) for number in range(6)]
