"""``inflate animate | interpolate | extend | infill | vary | upscale``: pictures and videos in, a video out."""

import math
from pathlib import Path
from typing import Annotated

import typer

from inflate.cli.enlarge import upscale_file
from inflate.cli.known_video import extend_known, interpolate_known, read_chunks, read_video
from inflate.cli.options import (
    AsJson,
    Device,
    Dtype,
    Force,
    FrameSkip,
    GuidanceScale,
    Model,
    Quiet,
    Seed,
    Steps,
    Until,
    Variant,
)
from inflate.cli.video_job import VideoJob, read_picture
from inflate.errors import InputError, nearest

DEFAULT_WEIGHT = 1.0  # what Bayes' rule derives; see the table in recipes/emoji/README.md

Output = Annotated[Path, typer.Option("-o", "--output", help="A .mp4, .webp or .gif.")]
Frames = Annotated[int, typer.Option(help="Frames to make.", min=1)]
Fps = Annotated[float, typer.Option(help="Frames per second.")]
Weight = Annotated[float, typer.Option(help="Weight of reconstruction guidance; 0 replaces known frames alone.", min=0)]
Guide = Annotated[
    str,
    typer.Option(
        help="How known frames guide new ones: errors (the network's errors there are spread, at no cost) or gradient "
        "(VDM's, through the network)."
    ),
]
Prompt = Annotated[str, typer.Option(help="What the video shows, for models that read it (Stable Diffusion).")]
VideoFile = Annotated[Path, typer.Argument(help="A video: mp4, mov, webm, mkv, gif, webp, …")]


def register(app: typer.Typer) -> None:
    """Add the applications."""
    for command in (animate, interpolate, extend, infill, vary, upscale):
        app.command()(command)


def animate(
    image: Annotated[Path, typer.Argument(help="A picture; it becomes the first frame.")],
    output: Output,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    frames: Frames = 16,
    fps: Fps = 8,
    frame_skip: FrameSkip = 5,
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    until: Until = None,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a picture move."""
    _check_timing(frames, fps, frame_skip)
    job = VideoJob(output, model, variant, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    picture = read_picture(image)
    job.tell_size(picture.height, picture.width)
    job.run(lambda cascade, options: cascade.animate(picture, frames, fps, frame_skip, **options))


def interpolate(
    source: Annotated[list[Path], typer.Argument(help="Two pictures, or one video.")],
    output: Output,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    frames: Frames = 16,
    fps: Fps = 8,
    frame_skip: FrameSkip = 5,
    method: Annotated[str, typer.Option(help="interpolation; or reconstruction: of a video, by D^t alone.")] = (
        "interpolation"
    ),
    weight: Weight = DEFAULT_WEIGHT,
    guide: Guide = "errors",
    prompt: Prompt = "",
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    until: Until = None,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fill in what lies between two pictures, or between the frames of a video (--frame-skip times as many)."""
    _check_between(source, method, weight, guide)
    _check_timing(frames, fps, frame_skip)
    job = VideoJob(output, model, variant, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    if len(source) == 1 and method == "reconstruction":
        from inflate.cascade.constrained import raise_frame_rate

        video = read_video(source[0], job)
        job.run(
            lambda cascade, options: raise_frame_rate(
                cascade, video, frame_skip, weight, prompt=prompt, guide=guide, **options
            ),
            source[0],
            rate=frame_skip,
        )
        return
    if len(source) == 1:
        interpolate_known(job, source[0], frame_skip)
        return
    first, last = (read_picture(path) for path in source)
    job.tell_size(first.height, first.width)
    job.run(lambda cascade, options: cascade.interpolate(first, last, frames, fps, frame_skip, **options))


def extend(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    frames: Frames = 8,
    seconds: Annotated[
        float | None, typer.Option(help="How long the result lasts; with --method reconstruction, instead of --frames.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="interpolation or reconstruction (D^t alone); default: the first the model can, in order."),
    ] = None,
    weight: Weight = DEFAULT_WEIGHT,
    guide: Guide = "errors",
    prompt: Prompt = "",
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    until: Until = None,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Go on where a video ends, by --frames frames or until it lasts --seconds."""
    if method is not None:
        check_method(method, ("interpolation", "reconstruction"))
    _check_guidance(weight, guide)
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"--seconds is {seconds}; give a number of seconds above 0.")
    job = VideoJob(output, model, variant, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    if method is None:
        method = "interpolation" if seconds is None and job.cascade.stage("interpolation") else "reconstruction"
    if method == "interpolation":
        extend_known(job, video, frames, seconds)
        return
    from inflate.cascade.reconstruction import extend_video

    known = read_video(video, job)
    lasting = (known.num_frames + frames) / known.fps if seconds is None else seconds
    job.run(
        lambda cascade, options: extend_video(cascade, known, lasting, weight, prompt=prompt, guide=guide, **options),
        video,
        longer=True,
    )


def infill(
    video: VideoFile,
    output: Output,
    missing: Annotated[str, typer.Option(help="Numbers of the frames to make, from 0: 4-11 or 1,3,5.")],
    model: Model = "bundled:emoji",
    variant: Variant = None,
    weight: Weight = DEFAULT_WEIGHT,
    guide: Guide = "errors",
    prompt: Prompt = "",
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make frames of a video anew from those around them, with D^t alone."""
    import torch

    from inflate.cascade.reconstruction import frame_numbers, infill_video

    _check_guidance(weight, guide)
    job = VideoJob(output, model, variant, seed, steps, guidance_scale, None, force, device, dtype, quiet, as_json)
    job.keeps_alpha = False  # nobody knows that of the missing frames
    source = read_video(video, job)
    known = torch.ones(source.num_frames, dtype=torch.bool)
    known[frame_numbers(missing, source.num_frames, "--missing")] = False
    job.run(
        lambda cascade, options: infill_video(cascade, source, known, weight, prompt=prompt, guide=guide, **options),
        video,
    )


def vary(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    frames: Frames = 16,
    fps: Fps = 8,
    frame_skip: FrameSkip = 5,
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    until: Until = None,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make another video of what a video shows."""
    from inflate.data import video_facts

    _check_timing(frames, fps, frame_skip)
    job = VideoJob(output, model, variant, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    facts = video_facts(video)
    job.tell_size(facts.height, facts.width)
    chunks = read_chunks(video, facts)
    job.drop_beside(video)
    job.run(lambda cascade, options: cascade.vary_chunks(chunks, frames, fps, frame_skip, **options))


def upscale(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    method: Annotated[
        str, typer.Option(help="super-resolution; or reconstruction: videos smaller than D^t's, by D^t alone.")
    ] = "super-resolution",
    factor: Annotated[
        float | None,
        typer.Option(
            help="How many times larger each side becomes; by default as much as the model can, but no more than 4K "
            "pictures (4096 x 2304 px)."
        ),
    ] = None,
    weight: Weight = DEFAULT_WEIGHT,
    prompt: Prompt = "",
    seed: Seed = 0,
    steps: Steps = "",
    until: Until = None,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Enlarge a video of any length by the super-resolution stages; says first how long that takes.

    Memory does not grow with the video's length, and little with its size: bundled:emoji stays below 3 GB.
    """
    check_method(method, ("super-resolution", "reconstruction"))
    _check_guidance(weight)
    job = VideoJob(output, model, variant, seed, steps, "", until, force, device, dtype, quiet, as_json)
    if method == "super-resolution":
        upscale_file(job, video, factor)
        return
    if factor is not None:
        raise InputError("--factor is for --method super-resolution; reconstruction makes frames as large as D^t's.")
    from inflate.cascade.constrained import enlarge_video

    low = read_video(video)
    job.tell_size(low.height, low.width)
    job.run(lambda cascade, options: enlarge_video(cascade, low, weight, prompt=prompt, **options), video)


def _check_between(source: list[Path], method: str, weight: float, guide: str) -> None:
    """``InputError`` for what ``interpolate`` cannot do."""
    from inflate.data import video_facts

    if len(source) > 2:
        raise InputError(f"interpolate takes two pictures or one video, got {len(source)} files.")
    check_method(method, ("interpolation", "reconstruction"))
    _check_guidance(weight, guide)
    if method == "reconstruction" and len(source) == 2:
        raise InputError("--method reconstruction fills in a video, not two pictures; give one video.")
    if len(source) == 1 and video_facts(source[0]).num_frames < 2:
        raise InputError(
            f"{source[0]} is a single picture; interpolate takes two pictures, or a video of two frames or more."
        )


def _check_timing(frames: int, fps: float, frame_skip: int) -> None:
    """``InputError`` for numbers of which no video could be made, before anything is said of it."""
    from inflate.cascade.inputs import Timing

    Timing(frames, fps, frame_skip)


def _check_guidance(weight: float, guide: str = "errors") -> None:
    """``InputError`` for a ``--weight`` or ``--guide`` that cannot be, also where the method has no use for them."""
    from inflate.cascade.reconstruction import check_guidance

    check_guidance(weight, guide)


def check_method(name: str, known: tuple[str, ...]) -> None:
    """``InputError`` for another ``--method``."""
    if name not in known:
        raise InputError(f"--method is {name!r}{nearest(name, known)}; use {' or '.join(known)}.")
