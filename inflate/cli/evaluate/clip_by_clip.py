"""Measures of each clip by itself, and two result files side by side."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.evaluate.options import Device, Dtype, Json, Quiet, check_asked
from inflate.cli.evaluate.videos import (
    Batch,
    ClipFrames,
    Clips,
    Draws,
    Made,
    Resize,
    Seed,
    Side,
    Start,
    Stride,
    cut_as,
    effort_of,
    one_set,
    place_of,
    tell,
)

if TYPE_CHECKING:
    from inflate.evaluate.clips import ClipFolder
    from inflate.evaluate.results import Result
    from inflate.evaluate.videos import Effort

ClipModel = Annotated[
    str, typer.Option("--network", help="A CLIP: open_clip's or transformers' folder, a repository, or bundled:clip.")
]


def clipsim(
    made: Made,
    network: ClipModel = "bundled:clip",
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    resamples: Draws = 200,
    batch_size: Batch = 16,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """CLIPSIM: mean cosine of frames to the caption of their video."""
    from inflate.evaluate.clip_networks import load_clip
    from inflate.evaluate.videos import clipsim as measure

    check_asked(json_file)
    folder = one_set(made, clips, cut_as(frames, stride, start, 1, size, resize, seed))
    model = load_clip(network, *place_of(device, dtype))
    _measure(measure, folder, effort_of([folder], resamples, batch_size, dtype, quiet), json_file, model)


def consistency(
    made: Made,
    network: ClipModel = "bundled:clip",
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    resamples: Draws = 200,
    batch_size: Batch = 16,
    seed: Seed = 0,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Frame consistency: mean cosine of neighbouring frames."""
    from inflate.evaluate.clip_networks import load_clip
    from inflate.evaluate.videos import consistency as measure

    check_asked(json_file)
    folder = one_set(made, clips, cut_as(frames, stride, start, 1, size, resize, seed))
    model = load_clip(network, *place_of(device, dtype))
    _measure(measure, folder, effort_of([folder], resamples, batch_size, dtype, quiet), json_file, model)


def warping(
    made: Made,
    frames: ClipFrames = 16,
    stride: Stride = 1,
    start: Start = "first",
    clips: Clips = None,
    size: Side = None,
    resize: Resize = "lanczos",
    resamples: Draws = 200,
    seed: Seed = 0,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Warping error: how far frames are from their neighbours moved along optical flow."""
    from inflate.evaluate.videos import warping as measure

    check_asked(json_file)
    folder = one_set(made, clips, cut_as(frames, stride, start, 1, size, resize, seed))
    _measure(measure, folder, effort_of([folder], resamples, 1, "uint8", quiet), json_file)


def motion_of_videos(made: Path, frames: int, seed: int, json_file: Path | None, quiet: bool) -> None:
    """Motion magnitude of a folder of videos: ``inflate evaluate motion VIDEOS``, without a family and its data."""
    from inflate.evaluate.videos import motion as measure

    check_asked(json_file)
    folder = one_set(made, None, cut_as(frames, 1, "first", 1, None, "lanczos", seed))
    _measure(measure, folder, effort_of([folder], 200, 1, "uint8", quiet), json_file)


def _measure(
    measure: "Callable[..., Result]",
    folder: "ClipFolder",
    effort: "AbstractContextManager[Effort]",
    json_file: Path | None,
    model: Any = None,
) -> None:
    """Measure a folder's clips, by a CLIP where there is one, and tell the result."""
    with effort as given:
        result = measure(folder, given) if model is None else measure(folder, model, given)
    tell(result, "" if model is None else model.weights.sentence(), json_file)


def compare(
    first: Annotated[Path, typer.Argument(help="A result file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where they were measured differently.")] = False,
) -> None:
    """Two result files side by side; refused where measure or protocol differ, and every difference is named."""
    from inflate.evaluate.results import comparison, differences, read_result, refuse_different

    results = read_result(first), read_result(second)
    if not anyway:
        refuse_different(*results, (str(first), str(second)))
    typer.echo("\n".join(comparison(*results)))
    for name, (one, other) in differences(*results).items():
        typer.echo(f"warning: measured differently: {name} is {one} and {other}", err=True)
