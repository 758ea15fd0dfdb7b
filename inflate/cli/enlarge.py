"""What ``inflate upscale`` says and checks before it starts, and how it goes on: a frame and a tile at a time."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from inflate.cli.generate import progress_bar
from inflate.cli.known_video import read_chunks

if TYPE_CHECKING:
    from inflate.cascade.enlarging import Enlarging
    from inflate.cli.video_job import VideoJob
    from inflate.data.decode import VideoFacts

_SAMPLE_FRAMES, _SAMPLE_SIDE = 8, 768  # of what is encoded to see how long that takes


def upscale_file(job: "VideoJob", source: Path, factor: float | None) -> None:
    """Enlarge a file of any length and size, having said how large it gets and how long that takes.

    Raises:
        InputError: no video, a factor that the model cannot do, or too little room on the disk or in the format.
    """
    from inflate.data import frame_times, video_facts
    from inflate.video import from_uint8, to_uint8

    facts = video_facts(source)
    plan = _plan(job, facts, factor)
    times = frame_times(source)
    beside = job.beside(source, times)
    works = [] if job.quiet else _say_how_long(job, source, plan)
    with progress_bar(job.quiet) as on_step:
        chunks = (from_uint8(chunk[None])[0] for chunk in read_chunks(source, facts))
        made = job.cascade.upscale_chunks(
            chunks, facts.num_frames, plan.factor, works, times.fps, **job.options(on_step)
        )
        job.write((to_uint8(chunk[None])[0] for chunk in made), times.fps, *beside)


def _plan(job: "VideoJob", facts: "VideoFacts", factor: float | None) -> "Enlarging":
    """What is to be done, checked; by default as large as the model makes it, but no larger than 4K."""
    from inflate.cascade.enlarging import scale_of, usual_factor
    from inflate.data.writing import check_room

    stages = job.cascade.upscalers(job.until)
    chosen = usual_factor(stages, facts.height, facts.width) if factor is None else factor
    plan = job.cascade.enlarging(facts, chosen, job.until)
    check_room(job.output, facts.num_frames, plan.size)
    plan.check_disk()
    if factor is None and chosen < scale_of(stages) and not job.quiet:
        typer.echo(f"Frames become {chosen} times as large; --factor takes up to {scale_of(stages)}.", err=True)
    return plan


def _say_how_long(job: "VideoJob", source: Path, plan: "Enlarging") -> list[float]:
    """Print the time from what small parts of the work take here; returns that of each stage, in seconds."""
    from inflate.cascade.enlarging import in_words

    works = plan.seconds(job.cascade, job.cascade.settings(**job.chosen))
    seconds = sum(works) + _encoding_seconds(source, plan, job.output.suffix)
    (height, width), disk = plan.size, plan.disk_bytes()
    room = f", and {disk / 1e9:.1f} GB for temporary files" if disk > 1e8 else ""
    typer.echo(
        f"{plan.num_frames} frames of {width} x {height} px: about {in_words(seconds)} on this machine{room}.", err=True
    )
    return works


def _encoding_seconds(source: Path, plan: "Enlarging", suffix: str) -> float:
    """How long writing the result will take: a cut of the first frames, enlarged plainly, is written for that."""
    import numpy as np
    from PIL import Image

    from inflate.data import iterate_frames
    from inflate.data.writing import write_video

    frames = next(iterate_frames(source, _SAMPLE_FRAMES))
    (height, width), (high, wide) = plan.size, frames.shape[1:3]
    sides = (min(width, _SAMPLE_SIDE), min(height, _SAMPLE_SIDE))
    cut = (0.0, 0.0, wide * sides[0] / width, high * sides[1] / height)
    sample = np.stack(
        [np.asarray(Image.fromarray(one).resize(sides, Image.Resampling.BICUBIC, box=cut)) for one in frames]
    )
    with tempfile.TemporaryDirectory(prefix="inflate-") as folder:
        start = time.perf_counter()
        write_video(Path(folder) / f"sample{suffix}", sample, 25)
        taken = time.perf_counter() - start
    return taken * plan.num_frames / len(sample) * width * height / (sides[0] * sides[1])
