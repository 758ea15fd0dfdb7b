"""What ``inflate upscale`` says and checks before it starts, and how it goes on: a frame and a tile at a time."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from inflate.cli.how_long import say_how_long
from inflate.cli.known_video import read_chunks
from inflate.cli.reporting import progress_bar

if TYPE_CHECKING:
    from inflate.cascade.enlarging import Enlarging
    from inflate.cli.video_job import VideoJob
    from inflate.data.decode import VideoFacts


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
    works = plan.seconds(job.cascade, job.cascade.settings(**job.chosen))
    say_how_long(source, job.output, plan.num_frames, plan.size, sum(works), plan.disk_bytes())
    return works
