"""The sentence that says, before long work begins, what is made and how long that takes on this machine."""

import time
from pathlib import Path

import typer

_SAMPLE_FRAMES, _SAMPLE_SIDE = 8, 768  # of what is encoded to see how long that takes


def say_how_long(
    source: Path | None, output: Path, num_frames: int, size: tuple[int, int], seconds: float, disk_bytes: int = 0
) -> None:
    """Print it.

    Args:
        source: the video that is worked on, if any: how long it takes to write what is made of it is added.
        output: the file to write.
        num_frames: frames made.
        size: their height and width, in pixels.
        seconds: of the networks.
        disk_bytes: of temporary files.
    """
    from inflate.cascade.enlarging import in_words

    if source is not None:
        seconds += _encoding_seconds(source, num_frames, size, output.suffix)
    (height, width), room = size, f", and {disk_bytes / 1e9:.1f} GB for temporary files" if disk_bytes > 1e8 else ""
    typer.echo(
        f"{num_frames} frames of {width} x {height} px: about {in_words(seconds)} on this machine{room}.", err=True
    )


def _encoding_seconds(source: Path, num_frames: int, size: tuple[int, int], suffix: str) -> float:
    """How long writing the result will take: a cut of the first frames, enlarged plainly, is written for that."""
    import numpy as np
    from PIL import Image

    from inflate.data import iterate_frames
    from inflate.data.writing import write_video
    from inflate.staging import scratch_folder

    frames = next(iterate_frames(source, _SAMPLE_FRAMES))
    (height, width), (high, wide) = size, frames.shape[1:3]
    sides = (min(width, _SAMPLE_SIDE), min(height, _SAMPLE_SIDE))
    cut = (0.0, 0.0, wide * sides[0] / width, high * sides[1] / height)
    sample = np.stack(
        [np.asarray(Image.fromarray(one).resize(sides, Image.Resampling.BICUBIC, box=cut)) for one in frames]
    )
    with scratch_folder() as folder:
        start = time.perf_counter()
        write_video(folder / f"sample{suffix}", sample, 25)
        taken = time.perf_counter() - start
    return taken * num_frames / len(sample) * width * height / (sides[0] * sides[1])
