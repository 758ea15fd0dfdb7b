#!/usr/bin/env bash
# PyAV 18.1.0 (its wheel holds FFmpeg 8.1.2).
#
# Expected: frames leave the decoder in the order they are shown, so their times (VideoFrame.pts) rise, in AVI as in
#   MP4.
# Seen: AVI stores no times of presentation; for H.264 with B-frames each frame has the time of its place in the order
#   of decoding. The frames themselves come in the right order (their grey levels rise), but a reader that drops every
#   frame whose time is not above the last one's loses 6 of 20. The same pictures in MP4, and without B-frames in AVI,
#   are in order.
#
#   av 18.1.0, FFmpeg 8.1.2
#   AVI, 2 B-frames: times in frames 1 3 4 2 6 7 5 9 10 8 12 13 11 15 16 14 18 19 17 20
#     lost 6 of 20; grey levels rise: True
#   MP4, 2 B-frames: times in frames 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19
#     lost 0 of 20; grey levels rise: True
#   AVI, 0 B-frames: times in frames 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20
#     lost 0 of 20; grey levels rise: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check av==18.1.0
venv/bin/python - <<'PY'
import sys

import av

COUNT, RATE = 20, 25


def pictures(path, b_frames):
    """The times and grey levels of a clip that grows brighter from frame to frame, as read back."""
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": str(b_frames), "b_adapt": "0", "threads": "1", "x264-params": "log-level=none"}
        for number in range(COUNT):
            frame = av.VideoFrame(64, 64, "gray")
            frame.planes[0].update(bytes([10 + 12 * number]) * frame.planes[0].buffer_size)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(path) as container:
        frames = container.decode(video=0)
        return [(int(frame.pts * frame.time_base * RATE), bytes(frame.planes[0])[0]) for frame in frames]


def lost(times):
    """How many frames a reader drops that wants each time above the last one's."""
    last, dropped = -1, 0
    for time in times:
        dropped += time <= last
        last = max(time, last)
    return dropped


print(f"av {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
seen = {}
for path, b_frames in (("a.avi", 2), ("a.mp4", 2), ("a.avi", 0)):
    times, levels = zip(*pictures(path, b_frames))
    seen[path, b_frames] = lost(times)
    print(f"{path[2:].upper()}, {b_frames} B-frames: times in frames", *times)
    print(f"  lost {lost(times)} of {len(times)}; grey levels rise: {list(levels) == sorted(set(levels))}")
    if len(times) != COUNT or list(levels) != sorted(set(levels)):
        sys.exit("the pictures are not the ones written, in order")
sys.exit(not (seen["a.avi", 2] > 0 and seen["a.mp4", 2] == seen["a.avi", 0] == 0))
PY
