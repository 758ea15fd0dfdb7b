#!/usr/bin/env bash
# PyAV 18.1.0 (its wheel holds FFmpeg 8.1.2), Matroska and WebM with alpha.
#
# Expected: a WebM of VP9 with alpha says so in one way, whatever else it is tagged with: FFmpeg's demuxer gives the
#   track's AlphaMode element as the stream's metadata "alpha_mode", by which programs choose a decoder that knows alpha
#   (libvpx-vp9; the native one drops it).
# Seen: where the file also has the tag that the usual recipe writes (-metadata:s:v:0 alpha_mode=1), the muxer stores it as
#   ALPHA_MODE, and when read this takes the element's place. What looks for "alpha_mode" finds an opaque video.
#
#   av 18.1.0, FFmpeg 8.1.2
#   without the tag: {'alpha_mode': '1'}
#   with the tag: {'ALPHA_MODE': '1'}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check av==18.1.0
venv/bin/python - <<'PY'
import sys

import av

SIZE = 64


def metadata(path, **tags):
    with av.open(path, "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25, options={"auto-alt-ref": "0"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuva420p"
        stream.metadata.update(tags)
        frame = av.VideoFrame(SIZE, SIZE, "yuva420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(path) as container:
        return {key: value for key, value in container.streams.video[0].metadata.items() if key.lower() == "alpha_mode"}


print(f"av {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
plain = metadata("plain.webm")
print("without the tag:", plain)
tagged = metadata("tagged.webm", alpha_mode="1")
print("with the tag:", tagged)
sys.exit(not (plain == {"alpha_mode": "1"} and tagged == {"ALPHA_MODE": "1"}))
PY
