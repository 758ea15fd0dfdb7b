"""What a file is, by its first bytes and never by its name: a container, a picture, or something that is not opened.

FFmpeg guesses formats, and among its guesses are playlists and scripts, which make it open the files and addresses they
name. So it is told the format, gets the open file instead of a name, and may open nothing else.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from inflate.data.reading.footage import Footage

PICTURE = "picture"
# 16384 x 8192; libavcodec refuses a larger frame before it takes memory for it.
MAX_PIXELS = 1 << 27

_HEAD = 1 << 13
_BOXES = frozenset([*b"ftyp styp moov mdat moof sidx free skip wide pnot udta uuid junk pict".split(), b"jP  "])
_STARTS = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"FLV", "flv"),
    (bytes.fromhex("3026b2758e66cf11"), "asf"),
    (b"DKIF", "ivf"),
    (b"nut/multimedia container\0", "nut"),
    (b"\x12\x00\x0a", "obu"),
    (b"\x89PNG\r\n\x1a\n", PICTURE),
    (b"\xff\xd8\xff", PICTURE),
    (b"GIF8", PICTURE),
    (b"BM", PICTURE),
    (b"II*\0", PICTURE),
    (b"MM\0*", PICTURE),
)
_RIFF = {b"AVI ": "avi", b"AVI\x19": "avi", b"CDXA": "mpeg", b"WEBP": PICTURE}
_PORTABLE = re.compile(rb"P[1-6fy]\s")
_MXF = bytes.fromhex("060e2b34020501010d0102")
_DV = re.compile(rb"\x1f\x07\x00[\x3f\xbf]")
_TS_SYNC = 0x47
# What a text begins with, spaces aside, and what it then is.
_NAMING = (
    (rb"#EXT", "a playlist (HLS, m3u8)"),
    (rb"ffconcat\b|file\s+\S", "a concat script"),
    (rb"<(.*<)?(\w+:)?MPD\b", "a playlist (DASH, mpd)"),
    (rb"<(.*<)?(\w+:)?(AssetMap|CompositionPlaylist)\b", "a playlist (IMF)"),
    (rb"<(.*<)?(SmoothStreamingMedia|asx|smil|wvx|playlist)\b", "a playlist (XML)"),
    (rb"<(.*<)?svg\b", "an SVG drawing"),
    (rb"\[(playlist|reference)\]", "a playlist (pls, asx)"),
    (rb"v=\d+\s", "a session description (SDP)"),
    (rb"(rtsp|smil)text|(rtsp|rtmp|mms|https?|file|concat|subfile|data):", "an address"),
    (rb"# mpv EDL|TITLE:", "an edit list (EDL)"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript program"),
)
_TELLING = (
    (rb"\[Script Info\]|WEBVTT|\d+\s+\d\d:\d\d:\d\d[,.]\d|<SAMI\b", "a file of subtitles"),
    (rb";FFMETADATA", "a list of metadata"),
    (rb"<(!doctype\s+)?html\b", "a saved web page"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
)
# Pictures that are not read here.
_OTHERS = (
    (rb".{4}jP  .{8}ftypjp[2xm]|\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb".{4}ftyp(hei[cxms]|mif1)", "a HEIF picture (HEIC)"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"II\xbc\x01", "a JPEG XR picture"),
    (rb"\0\0[\1\2]\0[^\0]\0", "a Windows icon (ICO, CUR)"),
    (rb"icns", "a Mac's icon (ICNS)"),
    (rb"8BP[SB]", "a Photoshop document (PSD)"),
    (rb"gimp xcf", "a GIMP document (XCF)"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (rb"#\?RA", "a Radiance picture (HDR)"),
    (rb"DDS ", "a DDS texture"),
    (rb"qoif", "a QOI picture"),
    (rb"BPG\xfb", "a BPG picture"),
    (rb"%PDF", "a PDF document"),
)
PICTURE_KINDS = "PNG, JPEG, WebP, GIF, AVIF, BMP, TIFF or PPM"


class NoMediaError(OSError):
    """A file whose first bytes are not those of a video or a picture that is opened here; says what it is."""


def recognise(file: BinaryIO) -> str:
    """FFmpeg's name of a container's format, or ``PICTURE`` for what Pillow reads; the file is where it was before.

    Raises:
        NoMediaError: neither; playlists and scripts are named.
    """
    place = file.tell()
    head = file.read(_HEAD)
    file.seek(place)
    found = _picture_or_container(head)
    if found is None:
        raise NoMediaError(_refusal(head))
    return found


@contextlib.contextmanager
def opened_container(footage: Footage) -> Iterator[Any]:
    """The container as PyAV has it, of the format that its first bytes have.

    Raises:
        NoMediaError: it is a picture, or none of the containers that are opened here.
    """
    import av

    with footage.open() as file:
        form = recognise(file)
        if form == PICTURE:
            raise NoMediaError("it is a picture, not a video")
        # No protocol at all: the file is open, and what it names is not to be opened.
        options = {"protocol_whitelist": "", "format_whitelist": form, "max_pixels": str(MAX_PIXELS)}
        # Titles and authors in old encodings are no reason to refuse a video.
        container: Any = av.open(file, mode="r", format=form, options=options, metadata_errors="replace")
        with container:
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container


def is_picture(footage: Footage) -> bool:
    """Whether Pillow reads it: a still picture or an animation.

    Raises:
        NoMediaError: neither a picture nor a container.
    """
    with footage.open() as file:
        return recognise(file) == PICTURE


def _picture_or_container(head: bytes) -> str | None:
    for start, form in _STARTS:
        if head.startswith(start):
            return form
    if head[4:8] in _BOXES and not _other_picture(head):
        return PICTURE if _is_avif(head) else "mov"
    if head.startswith(b"RIFF") and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if _PORTABLE.match(head):
        return PICTURE
    if _DV.match(head):
        return "dv"
    return _elementary(head) or ("mpegts" if _is_transport(head) else "mxf" if _MXF in head else None)


def _is_avif(head: bytes) -> bool:
    """AV1 pictures are those of Pillow; a file may call itself by a more general brand first."""
    brands = head[8 : min(64, int.from_bytes(head[:4], "big"))]
    general = brands[:4] in (b"mif1", b"msf1") and (b"avif" in brands or b"avis" in brands)
    return head[4:8] == b"ftyp" and (brands[:4] in (b"avif", b"avis") or general)


def _elementary(head: bytes) -> str | None:
    """Streams that begin with a start code: 00 00 01, then a byte that says what follows."""
    after = head.lstrip(b"\0")
    if len(head) - len(after) < 2 or len(after) < 3 or after[0] != 1:
        return None
    code, next_byte = after[1], after[2]
    if code == 0xB3:
        return "mpegvideo"
    if code >= 0xBA:
        return "mpeg"
    if next_byte == 1 and code >> 1 in (32, 33, 34, 35, 39):  # parameter sets, delimiter, information (H.265, 7.4.2.2)
        return "hevc"
    return "h264" if code < 0x80 and code & 0x1F in (1, 5, 6, 7, 8, 9) else None


def _is_transport(head: bytes) -> bool:
    """Packets of 188 bytes, after a time stamp of four (Blu-ray, AVCHD) or with 16 for correction; recordings may begin
    in the middle of one."""
    for size in (188, 192, 204):
        for first in range(size if len(head) >= 6 * size else 5):
            marks = head[first::size][:8]
            if len(marks) >= 2 and marks == bytes([_TS_SYNC]) * len(marks):
                return True
    return False


def _refusal(head: bytes) -> str:
    if not head:
        return "it is empty"
    if other := _other_picture(head):
        return f"it is {other}, which is not read here"
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text.decode("utf-16", "ignore").encode()
    text = text.lstrip()
    for table, more in ((_NAMING, ", which can name other files and addresses"), (_TELLING, "")):
        for start, name in table:
            if re.match(start, text, re.IGNORECASE | re.DOTALL):
                return f"it is {name}{more}"
    letters = text.decode("utf-8", "replace")[:-1]  # the last one may be cut in the middle
    if "\ufffd" not in letters and all(letter.isprintable() or letter.isspace() for letter in letters):
        return "it is a text file"
    return "its first bytes are those of no video or picture that is read here"


def _other_picture(head: bytes) -> str:
    """What a picture is that is not read here; FFmpeg would take one tile of a photo for the whole."""
    if _is_avif(head):
        return ""
    return next((name for start, name in _OTHERS if re.match(start, head, re.DOTALL)), "")
