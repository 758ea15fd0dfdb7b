"""Reading frames at their times, over containers, frame orders, orientations and damage."""

import itertools
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.data.clips.options import ClipOptions
from inflate.data.clips.scan import scan_video
from inflate.data.reading.footage import Footage
from inflate.data.reading.frames import OutOfOrderError, Stamped, shown_frames
from inflate.data.reading.pictures import VideoError

WriteClip = Callable[..., Path]


def footage(path: Path, **facts: Any) -> Footage:
    return Footage(str(path), path, path.suffix.lower(), **facts)


def ramp(number: int) -> np.ndarray:
    """Frame ``number`` is flat grey of level 20 + 4 ``number``."""
    return np.full((64, 64, 3), 20 + 4 * number, np.uint8)


def levels(path: Path, **reading: Any) -> list[tuple[float, int]]:
    """(seconds, number of the frame by its level) of all frames."""
    return [
        (round(shown.time, 4), round((float(shown.pixels().mean()) - 20) / 4))
        for shown in shown_frames(footage(path), **reading)
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".webm", ".avi"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_every_frame_comes_once_at_its_time(write_clip: WriteClip, tmp_path: Path, suffix: str, b_frames: str) -> None:
    if suffix == ".webm":
        path = write_clip(tmp_path / "a.webm", ramp, 40, codec="libvpx-vp9", crf="4", b="0")
    else:
        path = write_clip(tmp_path / f"a{suffix}", ramp, 40, bf=b_frames, g="10")
    try:
        found = levels(path)
    except OutOfOrderError:
        assert (suffix, b_frames) == (".avi", "3"), "only AVI has no times of presentation"
        found = levels(path, timing="counted")
    assert [number for _, number in found] == list(range(40))
    np.testing.assert_allclose([time for time, _ in found], np.arange(40) / 24, atol=1e-3)


def test_a_scan_counts_frames_where_times_run_backwards(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", ramp, 40, bf="3")
    scan = scan_video(footage(path), ClipOptions("x", num_frames=8))
    assert (scan.timing, scan.frames, scan.rate) == ("counted", 40, 24.0)
    assert scan.duration == pytest.approx(40 / 24, abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_reading_from_a_time_gives_the_frames_of_the_whole(write_clip: WriteClip, tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"a{suffix}", ramp, 50, bf="2", g="8")
    whole = list(shown_frames(footage(path)))
    assert isinstance(whole[0], Stamped)
    expected = {round(shown.time, 4): shown.pixels() for shown in whole}
    for start in (0.1, 0.5, 1.01, 1.9, 2.04):
        part = list(shown_frames(footage(path), start=start, origin=whole[0].stamp))
        assert part[0].time <= start + 1e-6
        assert part[-1].time == pytest.approx(49 / 24, abs=2e-3)
        for shown in part:
            # From a time on, the first frame may be one before it, but every frame is that of the whole.
            if shown.time >= start - 1 / 24:
                assert np.array_equal(shown.pixels(), expected[round(shown.time, 4)])


def test_a_variable_rate_keeps_its_times(write_clip: WriteClip, tmp_path: Path) -> None:
    starts = [40 * i for i in range(10)] + [4400 + 40 * i for i in range(10)]
    for suffix in (".mp4", ".mkv"):
        path = write_clip(tmp_path / f"a{suffix}", ramp, 20, rate=25, starts_ms=starts)
        found = levels(path)
        assert [number for _, number in found] == list(range(20))
        np.testing.assert_allclose([time for time, _ in found], np.array(starts) / 1000, atol=1e-3)
        scan = scan_video(footage(path), ClipOptions("x", num_frames=4, cut_threshold=0))
        assert scan.rate == pytest.approx(25, rel=0.01), "a pause is not the file's rate"


def cut_without_encoding(whole: Path, cut: Path, first: int, rate: int) -> None:
    """As ``ffmpeg -ss … -c copy``: packets from the key frame on are kept, an edit list hides those before the cut."""
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        theirs = source.streams.video[0]
        ours = target.add_stream_from_template(theirs)
        for packet in source.demux(theirs):
            if packet.dts is None or packet.pts is None:
                continue
            step = Fraction(1, rate) / packet.time_base
            packet.pts -= int(first * step)
            packet.dts -= int(first * step)
            packet.stream = ours
            target.mux(packet)


def test_an_edit_list_hides_frames_and_is_no_damage(write_clip: WriteClip, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", ramp, 50, g="1000", bf="0")
    cut_without_encoding(whole, tmp_path / "cut.mp4", 35, 24)
    found = levels(tmp_path / "cut.mp4")
    assert [number for _, number in found] == list(range(35, 50))
    np.testing.assert_allclose([time for time, _ in found], np.arange(15) / 24, atol=1e-3)
    first = next(iter(shown_frames(footage(tmp_path / "cut.mp4"))))
    assert isinstance(first, Stamped)
    assert levels(tmp_path / "cut.mp4", start=0.3, origin=first.stamp)[-1][1] == 49


MATRICES = {
    "none": (1, 0, 0, 1),
    "right": (0, 1, -1, 0),
    "half": (-1, 0, 0, -1),
    "left": (0, -1, 1, 0),
    "mirror": (-1, 0, 0, 1),
    "mirror-down": (1, 0, 0, -1),
    "right-mirror": (0, 1, 1, 0),
    "left-mirror": (0, -1, -1, 0),
}


def turned(write_clip: WriteClip, folder: Path, name: str) -> tuple[Path, np.ndarray]:
    """A file with that display matrix, and the frame it shows."""
    corners = np.zeros((64, 96, 3), np.uint8)
    corners[:32, 48:], corners[32:, :48], corners[32:, 48:] = 80, 160, 240
    plain = write_clip(folder / "plain.mp4", lambda _: corners, 4).read_bytes()
    a, b, c, d = MATRICES[name]
    at = plain.index(b"tkhd") + 44
    # The translation moves the picture back to the positive quadrant; players need it, the signs decide.
    right, down = min(0, 96 * a + 64 * c, 96 * a, 64 * c), min(0, 96 * b + 64 * d, 96 * b, 64 * d)
    row = [v << 16 for v in (a, b)] + [0] + [v << 16 for v in (c, d)] + [0, -right << 16, -down << 16, 1 << 30]
    path = folder / "turned.mp4"
    path.write_bytes(plain[:at] + struct.pack(">9i", *row) + plain[at + 36 :])
    # The definition: a pixel (x, y) is shown at (a x + c y + tx, b x + d y + ty).
    height, width = (64, 96) if a else (96, 64)
    expected = np.zeros((height, width, 3), np.uint8)
    for x, y in itertools.product(range(96), range(64)):
        px, py = a * (x + 0.5) + c * (y + 0.5) - right, b * (x + 0.5) + d * (y + 0.5) - down
        expected[int(py), int(px)] = corners[y, x]
    return path, expected


@pytest.mark.parametrize("name", MATRICES)
def test_rotation_and_mirroring_are_undone(write_clip: WriteClip, tmp_path: Path, name: str) -> None:
    path, expected = turned(write_clip, tmp_path, name)
    found = next(iter(shown_frames(footage(path)))).pixels()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_a_picture_with_an_orientation_is_turned(tmp_path: Path) -> None:
    picture = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[None, :, None], (32, 1, 3)))
    exif = picture.getexif()
    exif[274] = 6  # shown a quarter turn to the right
    for number in range(3):
        picture.save(tmp_path / f"f{number}.png", exif=exif)
    names = tuple(f"f{number}.png" for number in range(3))
    first = next(iter(shown_frames(Footage("f", tmp_path, ".png", pictures=names, rate=8.0)))).pixels()
    assert np.array_equal(first, np.rot90(np.asarray(picture), -1))


def test_pixels_that_are_not_square_are_told(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "pal.mp4", ramp, 4, aspect=Fraction(64, 45))
    assert next(iter(shown_frames(footage(path)))).aspect == pytest.approx(64 / 45)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        lambda data: b"<!DOCTYPE html><html></html>",
        lambda data: b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        lambda data: b"ffconcat version 1.0\nfile whole.mp4\n",
    ],
)
def test_damaged_files_and_disguises_are_one_sentence(
    write_clip: WriteClip, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    whole = write_clip(tmp_path / "whole.mp4", ramp, 30).read_bytes()
    path = tmp_path / "bad.mp4"
    path.write_bytes(damage(whole))
    with pytest.raises(VideoError) as error:
        scan_video(footage(path), ClipOptions("x", num_frames=4))
    assert "bad.mp4" in str(error.value) and "\n" not in str(error.value)


def test_an_mp4_whose_index_comes_first_is_refused_when_cut_off(write_clip: WriteClip, tmp_path: Path) -> None:
    path = tmp_path / "whole.mp4"
    write_clip(path, lambda n: np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8), 30)
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        theirs = source.streams.video[0]
        ours = target.add_stream_from_template(theirs)
        for packet in source.demux(theirs):
            if packet.dts is not None:
                packet.stream = ours
                target.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(VideoError, match=r"cut off: \d+ of 30 frames"):
        scan_video(footage(tmp_path / "cut.mp4"), ClipOptions("x", num_frames=4))


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi"])
def test_a_file_that_stops_half_way_is_refused(write_clip: WriteClip, tmp_path: Path, suffix: str) -> None:
    def noise(number: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)

    codec = {"codec": "libvpx-vp9"} if suffix == ".webm" else {"bf": "0", "g": "5"}
    whole = write_clip(tmp_path / f"whole{suffix}", noise, 60, **codec)
    assert scan_video(footage(whole), ClipOptions("x", num_frames=4, cut_threshold=0)).frames == 60
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    with pytest.raises(VideoError, match="cut"):
        scan_video(footage(path), ClipOptions("x", num_frames=4))


def test_a_cut_off_animation_is_refused(tmp_path: Path) -> None:
    noise = [np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8) for number in range(12)]
    frames = [Image.fromarray(pixels) for pixels in noise]
    for suffix in (".webp", ".gif"):
        path = tmp_path / f"a{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        assert len(levels(path)) == 12
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        with pytest.raises(VideoError):
            levels(path)


def test_a_clock_that_starts_again_loses_nothing(write_clip: WriteClip, tmp_path: Path) -> None:
    first = write_clip(tmp_path / "1.ts", ramp, 24, bf="0").read_bytes()
    second = write_clip(tmp_path / "2.ts", lambda n: ramp(n + 24), 24, bf="0").read_bytes()
    (tmp_path / "both.ts").write_bytes(first + second)
    scan = scan_video(footage(tmp_path / "both.ts"), ClipOptions("x", num_frames=4, cut_threshold=0))
    assert scan.frames == 48 and scan.duration == pytest.approx(2.0, abs=0.01)


def test_gif_delays_of_a_hundredth_are_shown_as_browsers_do(tmp_path: Path) -> None:
    frames = [Image.fromarray(ramp(number)) for number in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[10, 20, 100, 0])
    times = [shown.time for shown in shown_frames(footage(tmp_path / "a.gif"))]
    np.testing.assert_allclose(times, [0, 0.1, 0.12, 0.22])


def test_untagged_hd_is_bt709(write_clip: WriteClip, tmp_path: Path) -> None:
    red = np.zeros((720, 64, 3), np.uint8)
    red[...] = (200, 30, 30)
    path = write_clip(tmp_path / "hd.mp4", lambda _: red, 2)
    with av.open(str(path)) as container:
        plane = next(container.decode(video=0)).to_ndarray()
    y, u, v = (float(part.mean()) for part in (plane[:720], plane[720:900], plane[900:]))
    # BT.709, video range, by its definition.
    luma, cb, cr = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    expected = [luma + 1.5748 * cr, luma - 0.1873 * cb - 0.4681 * cr, luma + 1.8556 * cb]
    found = next(iter(shown_frames(footage(path)))).pixels().mean(axis=(0, 1))
    np.testing.assert_allclose(found, expected, atol=2)


@pytest.mark.parametrize("tagged", [False, True])
def test_transparency_of_vp9_is_white(tmp_path: Path, tagged: bool) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuva420p"
        if tagged:  # as by ffmpeg's -metadata:s:v:0 alpha_mode=1
            stream.metadata["alpha_mode"] = "1"
        for number in range(6):
            pixels = np.zeros((64, 64, 4), np.uint8)
            pixels[:32, :, 3] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = list(shown_frames(footage(path)))
    assert len(shown) == 6
    for frame in shown:
        pixels = frame.pixels()
        assert pixels[:28].max() < 30 and pixels[36:].min() > 225
    assert isinstance(shown[0], Stamped)
    [*_, last] = shown_frames(footage(path), start=0.15, origin=shown[0].stamp)
    assert last.time == pytest.approx(5 / 24, abs=1e-3)


def test_a_title_in_an_old_encoding_is_no_damage(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", ramp, 6, bf="0")
    bare = {"write_crc32": "0"}  # so that changed bytes are not taken for damage
    with av.open(str(path)) as source, av.open(str(tmp_path / "titled.mkv"), "w", options=bare) as target:
        target.metadata["title"] = "Caf__"
        theirs = source.streams.video[0]
        ours = target.add_stream_from_template(theirs)
        for packet in source.demux(theirs):
            if packet.dts is not None:
                packet.stream = ours
                target.mux(packet)
    data = (tmp_path / "titled.mkv").read_bytes()
    assert b"Caf__" in data
    (tmp_path / "titled.mkv").write_bytes(data.replace(b"Caf__", b"Caf\xe9\xe9"))
    assert len(levels(tmp_path / "titled.mkv")) == 6
