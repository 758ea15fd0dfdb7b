#!/usr/bin/env bash
# PyAV 18.1.0 (its wheel holds FFmpeg 8.1.2).
#
# Expected: an AVI whose title is Latin-1 opens and decodes. The INAM chunk of a RIFF file names no encoding, files of
#   before UTF-8 hold Latin-1, and the title is of no use to decoding.
# Seen: av.open raises UnicodeDecodeError before a frame can be asked for; all frames decode once metadata_errors or
#   metadata_encoding is given.
#
#   av 18.1.0, FFmpeg 8.1.2
#   UTF-8 title, av.open(path): title 'Cafe noir', 5 frames
#   Latin-1 title, av.open(path): UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 3: invalid continuation byte
#   Latin-1 title, metadata_errors='replace': title 'Caf\ufffd noir', 5 frames
#   Latin-1 title, metadata_encoding='latin-1': title 'Caf\xe9 noir', 5 frames
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check av==18.1.0
venv/bin/python - <<'PY'
import pathlib
import sys

import av


def read(path, **options):
    try:
        with av.open(path, **options) as container:
            frames = sum(1 for _ in container.decode(video=0))
            return f"title {ascii(container.metadata['title'])}, {frames} frames"
    except UnicodeDecodeError as error:
        return f"UnicodeDecodeError: {error}"


with av.open("utf8.avi", "w") as output:
    output.metadata["title"] = "Cafe noir"
    stream = output.add_stream("mjpeg", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuvj420p"
    for level in range(5):
        frame = av.VideoFrame(64, 64, "gray")
        frame.planes[0].update(bytes([40 * level]) * frame.planes[0].buffer_size)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
plain = pathlib.Path("utf8.avi").read_bytes()
assert plain.count(b"Cafe noir") == 1
pathlib.Path("latin1.avi").write_bytes(plain.replace(b"Cafe noir", b"Caf\xe9 noir"))

print(f"av {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
utf8, latin1 = read("utf8.avi"), read("latin1.avi")
replaced, told = read("latin1.avi", metadata_errors="replace"), read("latin1.avi", metadata_encoding="latin-1")
print("UTF-8 title, av.open(path):", utf8)
print("Latin-1 title, av.open(path):", latin1)
print("Latin-1 title, metadata_errors='replace':", replaced)
print("Latin-1 title, metadata_encoding='latin-1':", told)
same = latin1.startswith("UnicodeDecodeError") and all(seen.endswith(" 5 frames") for seen in (utf8, replaced, told))
sys.exit(not same)
PY
