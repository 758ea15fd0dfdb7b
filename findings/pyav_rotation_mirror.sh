#!/usr/bin/env bash
# PyAV 18.1.0 (its wheel holds FFmpeg 8.1.2).
#
# Expected: VideoFrame.rotation, "the rotation component of the DISPLAYMATRIX transformation matrix", is 180 degrees for
#   a half turn and not for a mirror, which turns nothing; or it says that the matrix is no rotation.
# Seen: a mirror left to right gives the angle of a half turn, a mirror top to bottom that of a plain clip. Only the
#   matrix in the frame's side data (a, b, c, d below) tells them apart.
#
#   av 18.1.0, FFmpeg 8.1.2
#   plain: rotation 0, matrix (1, 0, 0, 1)
#   top to bottom: rotation 0, matrix (1, 0, 0, -1)
#   left to right: rotation -180, matrix (-1, 0, 0, 1)
#   half turn: rotation -180, matrix (-1, 0, 0, -1)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check av==18.1.0
venv/bin/python - <<'PY'
import pathlib
import struct
import sys

import av

SIZE = 64
# A pixel (x, y) is shown at (a x + c y + right, b x + d y + down).
MATRICES = {
    "plain": (1, 0, 0, 1),
    "top to bottom": (1, 0, 0, -1),
    "left to right": (-1, 0, 0, 1),
    "half turn": (-1, 0, 0, -1),
}

with av.open("plain.mp4", "w") as output:
    stream = output.add_stream("mpeg4", rate=25)
    stream.width = stream.height = SIZE
    stream.pix_fmt = "yuv420p"
    frame = av.VideoFrame(SIZE, SIZE, "gray")
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
plain = pathlib.Path("plain.mp4").read_bytes()
# In a track header of version 0 the nine numbers of the matrix begin 44 bytes after the start of its name.
start = plain.index(b"tkhd") + 44

print(f"av {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
rotations, found = {}, {}
for name, (a, b, c, d) in MATRICES.items():
    right, down = SIZE * (a < 0), SIZE * (d < 0)
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, right * one, down * one, 1 << 30)
    pathlib.Path("turned.mp4").write_bytes(plain[:start] + matrix + plain[start + 36 :])
    with av.open("turned.mp4") as container:
        frame = next(container.decode(video=0))
        found[name] = (1, 0, 0, 1)
        for side in frame.side_data:
            if side.type.name == "DISPLAYMATRIX":
                numbers = struct.unpack("=9i", bytes(side))
                found[name] = tuple(numbers[index] // one for index in (0, 1, 3, 4))
        rotations[name] = frame.rotation
    print(f"{name}: rotation {rotations[name]}, matrix {found[name]}")
same = rotations["left to right"] == rotations["half turn"] and rotations["top to bottom"] == rotations["plain"]
sys.exit(not (same and found == MATRICES))
PY
