"""Decoded frames of a container's stream, in order of showing; interlaced ones without their combs."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av
from av.filter import Graph

# FFmpeg's names of streams without a container, among those that `containers` opens.
_BARE = frozenset({"h264", "hevc", "mpegvideo", "obu"})
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# One frame for each, as many and at the same times; frames that are not marked as interlaced pass as they are.
_DEINTERLACE = ("bwdif", "mode=send_frame:deint=interlaced")


def decoded(stream: Any, sought: bool) -> Iterator[Any]:
    """Frames of ``stream`` from where its container stands.

    From the first interlaced frame on they are made progressive by ``bwdif``, which looks at the frame before and the
    one behind. Where ``sought``, reading starts in the middle: an interlaced first frame, whose predecessor is not
    known, is left out, so that a frame is the same wherever reading began.
    """
    frames, before = _frames(stream), None
    for frame in frames:
        if frame.interlaced_frame:
            made = _progressive(chain([frame] if before is None else [before, frame], frames))
            if sought or before is not None:
                next(made, None)
            yield from made
            return
        yield frame
        before, sought = frame, False


def stated_rate(stream: Any) -> float:
    """Frames per second where frames have no times of their own.

    Bare streams without a container (``.h264``) may state a rate in their headers, for which FFmpeg's ``average_rate``
    has 25 all the same.
    """
    if stream.container.format.name in _BARE and stream.codec_context.framerate:
        return float(stream.codec_context.framerate)
    return float(stream.average_rate or stream.guessed_rate or 25)


def _frames(stream: Any) -> Iterator[Any]:
    """As the decoder gives them; of VP8 and VP9 with transparency by the one decoder that does not drop it."""
    # The element of the container, or a tag of that name in capitals, which hides it.
    said = stream.metadata.get("alpha_mode") or stream.metadata.get("ALPHA_MODE")
    name = _WITH_ALPHA.get(stream.codec_context.name) if said == "1" else None
    if name is None:
        yield from stream.container.decode(stream)
        return
    decoder: Any = av.CodecContext.create(name, "r")
    for packet in stream.container.demux(stream):
        yield from decoder.decode(packet)  # the last packet is empty, and hands out what is left


def _progressive(frames: Iterator[Any]) -> Iterator[Any]:
    """Frames through the filter, which is made anew where their size or format changes."""
    graph: Any = None
    shape, waiting = None, deque[Any]()
    for frame in frames:
        if shape != (shape := (frame.width, frame.height, frame.format.name)):
            yield from _finished(graph, waiting)
            graph = _graph(frame)
        waiting.append(frame)
        graph.push(frame)
        yield from _pulled(graph, waiting)
    yield from _finished(graph, waiting)


def _graph(like: Any) -> Any:
    graph = Graph()
    # Colours too: where the filter has to have another layout of the same numbers, they say which numbers those are.
    colours = f"colorspace={int(like.colorspace)}:range={int(like.color_range)}"
    shape = f"video_size={like.width}x{like.height}:pix_fmt={like.format.name}:time_base={like.time_base}"
    source = graph.add("buffer", f"{shape}:{colours}")
    graph.link_nodes(source, graph.add(*_DEINTERLACE), graph.add("buffersink")).configure()
    return graph


def _finished(graph: Any, waiting: deque[Any]) -> Iterator[Any]:
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, waiting)


def _pulled(graph: Any, waiting: deque[Any]) -> Iterator[Any]:
    """What the filter has ready, each with the times and the flags of the frame that it was made of."""
    while True:
        try:
            made = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        made_of = waiting.popleft()
        made.pts, made.time_base, made.duration = made_of.pts, made_of.time_base, made_of.duration
        yield made
