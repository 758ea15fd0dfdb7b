"""Videos that a command works on: as a whole where frames of the model's size fit into memory, else by chunks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inflate.cli.how_long import say_how_long
from inflate.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from inflate.cascade import Cascade
    from inflate.cascade.known import KnownVideo
    from inflate.cascade.long import FrameStream
    from inflate.cli.video_job import VideoJob
    from inflate.data.decode import VideoFacts
    from inflate.video import Video

_READ_BYTES = 256 * 2**20  # of uint8 frames at the model's size
_MADE_BYTES = 256 * 2**20  # of float32 frames as the last stage makes them, of which there are several copies

Options = dict[str, Any]


def interpolate_known(job: "VideoJob", path: Path, frame_skip: int) -> None:
    """Make frames between those of a file, ``frame_skip`` times as many."""
    from inflate.cascade.known import interpolate_stream
    from inflate.data import video_facts

    _run(
        job,
        path,
        video_facts(path),
        0,
        lambda cascade, video, options: cascade.interpolate_video(video, frame_skip, **options),
        lambda cascade, video, options: interpolate_stream(cascade, video, frame_skip, **options),
        frame_skip,
    )


def extend_known(job: "VideoJob", path: Path, frames: int, seconds: float | None) -> None:
    """Make frames behind those of a file: ``frames``, or as many as make it last ``seconds``."""
    from inflate.cascade.known import extend_stream
    from inflate.data import video_facts

    facts = video_facts(path)
    count = frames if seconds is None else max(1, round(seconds * facts.fps) - facts.num_frames)
    _run(
        job,
        path,
        facts,
        count,
        lambda cascade, video, options: cascade.extend(video, count, **options),
        lambda cascade, video, options: extend_stream(cascade, video, count, **options),
    )


def _run(
    job: "VideoJob",
    path: Path,
    facts: "VideoFacts",
    new: int,
    small: "Callable[[Cascade, Video, Options], Any]",
    large: "Callable[[Cascade, KnownVideo, Options], FrameStream]",
    rate: int = 1,
) -> None:
    """Make frames between those of a file, or behind them, in memory or by chunks.

    Args:
        job: where the result goes.
        path: the file.
        facts: what it says of itself.
        new: frames behind its own.
        small: makes the video in memory.
        large: makes it by chunks, where there are more frames than that takes.
        rate: how many times as many frames.
    """
    from inflate.cascade.inputs import MAX_FRAMES
    from inflate.cascade.known import KnownVideo
    from inflate.cascade.timing import seconds_of_known
    from inflate.data.writing import check_room

    count = (facts.num_frames - 1) * rate + 1 + new
    size = made_size(job.cascade, job.until, facts)
    check_room(job.output, count, size)
    longer = new > 0
    if not job.quiet:
        seconds = seconds_of_known(job.cascade, facts, rate, new, until=job.until, **job.chosen)
        if seconds is not None:
            say_how_long(path, job.output, count, size, seconds)
    if max(count, facts.num_frames) <= MAX_FRAMES and count * size[0] * size[1] * 3 * 4 <= _MADE_BYTES:
        video = read_video(path, job, facts)
        job.run(lambda cascade, options: small(cascade, video, options), path, rate, longer)
        return
    job.tell_size(facts.height, facts.width)
    known = KnownVideo(read_chunks(path, facts), facts.num_frames, facts.fps)
    job.stream(lambda cascade, options: large(cascade, known, options), path, rate, longer)


def made_size(cascade: "Cascade", until: str | None, facts: "VideoFacts") -> tuple[int, int]:
    """Height and width of the frames that the chain makes of such a video."""
    from inflate.cascade.enlarging import scale_of

    scale = scale_of(cascade.enlargers(until))
    height, width = cascade.frame_shape(facts.height, facts.width)
    return height * scale, width * scale


def read_chunks(path: Path, facts: "VideoFacts") -> "Iterator[np.ndarray]":
    """The frames of a file, uint8 (n, H, W, 3), a few megabytes at a time."""
    from inflate.data import iterate_frames
    from inflate.data.spool import frames_of_chunk

    return iterate_frames(path, frames_of_chunk(facts.height, facts.width))


def read_video(path: Path, job: "VideoJob | None" = None, facts: "VideoFacts | None" = None) -> "Video":
    """A whole video file in memory; with a ``job``, brought to its model's size while it is read, which is said.

    ``facts`` are those of the file, where they are known already.

    Raises:
        InputError: not a video, or its frames take more memory than there is room for.
    """
    import numpy as np

    from inflate.data import video_facts
    from inflate.video import Video, to_uint8

    facts = facts or video_facts(path)
    height, width = (facts.height, facts.width)
    if job is not None:
        job.tell_size(height, width)
        height, width = job.cascade.frame_shape(height, width)
    needed = facts.num_frames * height * width * 3
    if needed > _READ_BYTES:
        raise InputError(
            f"{path} has {facts.num_frames} frames, at {width} x {height} px {needed / 1e9:.1f} GB; this works on at "
            f"most {_READ_BYTES / 1e9:.1f} GB: cut it first."
        )
    chunks = read_chunks(path, facts)
    if job is not None:
        chunks = (to_uint8(chunk[None])[0] for chunk in job.cascade.fitted(chunks))
    return Video(np.concatenate(list(chunks)), facts.fps)
