"""What a file is, its first bytes say, not its name; playlists and scripts are named and left alone."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from inflate.cli.video_job import read_picture
from inflate.data import VideoError, decode_video, frame_times, iterate_frames, video_facts
from inflate.data.clips.pictures import read_picture as read_training_picture
from inflate.data.clips.pictures import scan_picture
from inflate.data.reading import containers
from inflate.data.reading.containers import PICTURE, NoMediaError, recognise
from inflate.data.reading.footage import Footage
from inflate.data.sound import Sound
from inflate.data.writing import write_video
from inflate.errors import InputError
from inflate.page.uploads import check_picture, check_video

# Suffix, muxer, encoder, options of the muxer: every container that FFmpeg writes and people have.
CONTAINERS: list[tuple[str, str, str, dict[str, str]]] = [
    ("mp4", "mp4", "libx264", {}),
    ("mp4", "mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("m4v", "ipod", "libx264", {}),
    ("mov", "mov", "libx264", {}),
    ("3gp", "3gp", "mpeg4", {}),
    ("mkv", "matroska", "libx264", {}),
    ("webm", "webm", "libvpx-vp9", {}),
    ("avi", "avi", "mpeg4", {}),
    ("ts", "mpegts", "libx264", {}),
    ("mts", "mpegts", "libx264", {"mpegts_m2ts_mode": "1"}),
    ("mpg", "mpeg", "mpeg2video", {}),
    ("vob", "vob", "mpeg2video", {}),
    ("m2v", "mpeg2video", "mpeg2video", {}),
    ("wmv", "asf", "wmv2", {}),
    ("flv", "flv", "libx264", {}),
    ("ogv", "ogg", "libvpx", {}),
    ("h264", "h264", "libx264", {}),
    ("h265", "hevc", "libx265", {}),
    ("ivf", "ivf", "libvpx", {}),
    ("nut", "nut", "mpeg4", {}),
    ("mxf", "mxf", "mpeg2video", {}),
    ("obu", "obu", "libsvtav1", {}),
]
# First lines only; nothing that they name exists.
DISGUISED = {
    "an HLS playlist": ("#EXTM3U\n#EXT-X-VERSION:3\n", "HLS, m3u8"),
    "one after a mark of its encoding": ("\ufeff#EXTM3U\n", "HLS, m3u8"),
    "one after empty lines": ("\n\n#EXTM3U\n", "HLS, m3u8"),
    "a concat script": ("ffconcat version 1.0\n", "concat script"),
    "a concat script without its name": ("file 'none.mp4'\n", "concat script"),
    "a DASH manifest": ('<?xml version="1.0"?>\n<MPD type="static">\n', "DASH, mpd"),
    "an IMF playlist": ('<?xml version="1.0"?>\n<CompositionPlaylist>\n', "IMF"),
    "an IMF map": ('<?xml version="1.0"?>\n<am:AssetMap>\n', "IMF"),
    "smooth streaming": ('<?xml version="1.0"?>\n<SmoothStreamingMedia>\n', "a playlist"),
    "ASX": ('<asx version="3.0">\n', "a playlist"),
    "SMIL": ("<smil>\n", "a playlist"),
    "PLS": ("[playlist]\nNumberOfEntries=0\n", "a playlist"),
    "SDP": ("v=0\no=- 0 0 IN IP4 127.0.0.1\n", "SDP"),
    "an address": ("https://none.invalid/a.mp4\n", "an address"),
    "a QuickTime link": ("RTSPtext\n", "an address"),
    "an edit list": ("# mpv EDL v0\n", "EDL"),
    "PostScript": ("%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "SVG": ('<?xml version="1.0"?>\n<svg>\n', "SVG"),
    "subtitles": ("WEBVTT\n\n", "subtitles"),
    "older subtitles": ("1\n00:00:01,000 --> 00:00:02,000\nhello\n", "subtitles"),
    "styled subtitles": ("[Script Info]\nTitle: none\n", "subtitles"),
    "metadata": (";FFMETADATA1\n", "metadata"),
    "a saved page": ("<!DOCTYPE html>\n<html>\n", "web page"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "any other text": ("a caption of a clip\n", "text file"),
    "nothing": ("", "empty"),
}


def write_any(path: Path, muxer: str, encoder: str, options: dict[str, str]) -> Path:
    """Twelve grey frames of 64 x 64."""
    with av.open(str(path), "w", format=muxer, options=options) as container:
        stream: Any = container.add_stream(encoder, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("suffix", "muxer", "encoder", "options"),
    CONTAINERS,
    ids=[f"{suffix}-{n}" for n, (suffix, *_) in enumerate(CONTAINERS)],
)
def test_every_container_is_known_by_its_bytes(
    tmp_path: Path, suffix: str, muxer: str, encoder: str, options: dict[str, str]
) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder}")
    path = write_any(tmp_path / f"a.{suffix}", muxer, encoder, options)
    with av.open(str(path)) as container, path.open("rb") as file:
        assert recognise(file) in container.format.name.split(",")
        assert file.tell() == 0
    shown = decode_video(path)
    renamed = path.rename(tmp_path / "b.gif")  # the name says nothing
    assert len(decode_video(renamed).frames) == len(shown.frames) >= 11


def test_a_recording_may_begin_in_the_middle_of_a_packet(tmp_path: Path) -> None:
    path = write_any(tmp_path / "a.ts", "mpegts", "libx264", {})
    path.write_bytes(b"\x00\x11" * 45 + path.read_bytes())
    assert len(decode_video(path).frames) == 12


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "avif", "jpg", "bmp", "tiff", "ppm"])
def test_pictures_are_known_by_their_bytes(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8), (250, 10, 10)).save(tmp_path / f"a.{suffix}")
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / "b.mp4")
    with path.open("rb") as file:
        assert recognise(file) == PICTURE
    for seen in (decode_video(path).frames[0], np.asarray(read_picture(path)), np.asarray(check_picture(path))):
        assert np.abs(seen.astype(int) - (250, 10, 10)).max() < 12


READERS: dict[str, Callable[[Path], object]] = {
    "whole": decode_video,
    "bytes": lambda path: decode_video(path.read_bytes(), name=path.name),
    "facts": video_facts,
    "times": frame_times,
    "chunks": lambda path: list(iterate_frames(path)),
    "a picture to train on": lambda path: read_training_picture(Footage(str(path), path, path.suffix)),
    "a picture of a command": read_picture,
    "a video of the page": check_video,
    "a picture of the page": check_picture,
}


@pytest.mark.parametrize("name", DISGUISED)
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png", ".m3u8"])
def test_playlists_and_scripts_are_named_and_not_opened(tmp_path: Path, name: str, suffix: str) -> None:
    text, what = DISGUISED[name]
    path = tmp_path / f"disguised{suffix}"
    path.write_text(text, encoding="utf-8")
    for reader in READERS.values():
        with pytest.raises(InputError, match=what) as caught:
            reader(path)
        assert str(caught.value).count("\n") == 0
    assert not Sound(path).there() and Sound(path).why_not() == ""


def test_nothing_but_the_open_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg is told the format, gets no name, and has no protocol to open another with."""
    path = write_any(tmp_path / "a.mp4", "mp4", "libx264", {})
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    open_container = av.open

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return open_container(*arguments, **options)

    monkeypatch.setattr(av, "open", watched)
    decode_video(path)
    video_facts(path)
    assert not Sound(path).there()
    assert len(asked) >= 4
    for (file,), options in asked:
        assert not isinstance(file, str | Path) and options["format"] == "mov"
        assert options["options"]["protocol_whitelist"] == "" and options["options"]["format_whitelist"] == "mov"


def test_an_empty_list_of_protocols_opens_no_name(tmp_path: Path) -> None:
    """What the reader relies on: with it FFmpeg does not even open a plain file by name."""
    path = write_any(tmp_path / "a.mp4", "mp4", "libx264", {})
    with pytest.raises((OSError, ValueError)):
        av.open(str(path), options={"protocol_whitelist": ""})


def test_frames_beyond_the_limit_are_refused_by_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_any(tmp_path / "a.mp4", "mp4", "libx264", {})
    assert len(decode_video(path).frames) == 12
    monkeypatch.setattr(containers, "MAX_PIXELS", 48 * 48)
    with pytest.raises(VideoError):
        decode_video(path)


def test_a_place_inside_a_file_is_kept() -> None:
    file = io.BytesIO(b"....GIF89a")
    file.seek(4)
    assert recognise(file) == PICTURE and file.tell() == 4
    with pytest.raises(NoMediaError, match="no video or picture"):
        recognise(io.BytesIO(bytes(range(128, 256))))


# First bytes of files of other tools, by their formats' specifications.
FOREIGN = [
    (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000 picture"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIF picture (HEIC)"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIF picture (HEIC)"),
    (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"II\xbc\x01\x20\0", "a JPEG XR picture"),
    (b"\0\0\1\0\1\0\x10\x10", "a Windows icon (ICO, CUR)"),
    (b"\0\0\2\0\1\0\x10\x10", "a Windows icon (ICO, CUR)"),
    (b"icns\0\0\1\0", "a Mac's icon (ICNS)"),
    (b"8BPS\0\1", "a Photoshop document (PSD)"),
    (b"gimp xcf v011\0", "a GIMP document (XCF)"),
    (b"\x76\x2f\x31\x01\2\0\0\0", "an OpenEXR picture"),
    (b"#?RADIANCE\n", "a Radiance picture (HDR)"),
    (b"DDS \x7c\0\0\0", "a DDS texture"),
    (b"qoif\0\0\0\x10", "a QOI picture"),
    (b"BPG\xfb\0\0", "a BPG picture"),
    (b"%PDF-1.7\n", "a PDF document"),
]


@pytest.mark.parametrize(("start", "what"), FOREIGN)
def test_pictures_that_are_not_read_are_called_what_they_are(tmp_path: Path, start: bytes, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(start + bytes(300))
    said = re.escape(f"it is {what}, which is not read here")
    for read in (read_picture, check_picture, decode_video, check_video):
        with pytest.raises(InputError, match=said):
            read(path)
    with pytest.raises(InputError, match="give a PNG, JPEG, WebP, GIF, AVIF, BMP, TIFF or PPM"):
        read_picture(path)


def test_what_has_no_first_bytes_of_its_own_is_told_what_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.tga")
    with pytest.raises(InputError, match=r"no video or picture that is read here\); give a PNG, JPEG, WebP, GIF"):
        read_picture(tmp_path / "a.tga")


def test_a_video_for_a_picture_is_called_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", np.zeros((3, 16, 16, 3), np.uint8), 8).rename(tmp_path / "a.png")
    for read in (read_picture, check_picture):
        with pytest.raises(InputError, match="it is a video"):
            read(path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif", "tiff"])
def test_an_animation_for_a_picture_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    pictures = [Image.new("RGB", (16, 16), (80 * number, 9, 9)) for number in range(3)]
    for count in (3, 1):
        path = tmp_path / f"{count}.{suffix}"
        pictures[0].save(path, save_all=count > 1, append_images=pictures[1:count])
        read_picture(path)
        said = f"Of {path} only the first of its 3 frames is used; interpolate, extend, vary and upscale take a whole"
        assert (said in capsys.readouterr().err) == (count == 3)
        remarks = scan_picture(Footage(path.name, path, path.suffix)).remarks
        assert remarks == (("only the first of its 3 frames is used",) if count == 3 else ())
