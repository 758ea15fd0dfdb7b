"""``inflate animate | interpolate | extend | infill | vary | upscale``: pictures and videos in, a video out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.generate import (
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
    check_device,
    check_dtype,
    parse_by_stage,
    progress_bar,
    report_files,
)
from inflate.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from inflate.cascade import Cascade
    from inflate.data.sound import Sound
    from inflate.video import Video

_MAX_SECONDS_IN_MEMORY = 60
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
    job = _Job(output, model, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    picture = read_picture(image)
    job.run(lambda cascade, options: cascade.animate(picture, frames, fps, frame_skip, **options))


def interpolate(
    source: Annotated[list[Path], typer.Argument(help="Two pictures, or one video.")],
    output: Output,
    model: Model = "bundled:emoji",
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
    if len(source) > 2:
        raise InputError(f"interpolate takes two pictures or one video, got {len(source)} files.")
    check_method(method, ("interpolation", "reconstruction"))
    if method == "reconstruction" and len(source) == 2:
        raise InputError("--method reconstruction fills in a video, not two pictures; give one video.")
    job = _Job(output, model, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    if len(source) == 1:
        video = read_video(source[0])
        if method == "reconstruction":
            from inflate.cascade.constrained import raise_frame_rate

            job.run(
                lambda cascade, options: raise_frame_rate(
                    cascade, video, frame_skip, weight, prompt=prompt, guide=guide, **options
                )
            )
            return
        job.run(lambda cascade, options: cascade.interpolate_video(video, frame_skip, **options))
        return
    first, last = (read_picture(path) for path in source)
    job.run(lambda cascade, options: cascade.interpolate(first, last, frames, fps, frame_skip, **options))


def extend(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
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
    job = _Job(output, model, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    known = read_video(video)
    if method is None:
        method = "interpolation" if seconds is None and job.cascade.stage("interpolation") else "reconstruction"
    if method == "interpolation":
        count = frames if seconds is None else max(1, round(seconds * known.fps) - known.num_frames)
        job.run(lambda cascade, options: cascade.extend(known, count, **options))
        return
    from inflate.cascade.reconstruction import extend_video

    lasting = (known.num_frames + frames) / known.fps if seconds is None else seconds
    job.run(
        lambda cascade, options: extend_video(cascade, known, lasting, weight, prompt=prompt, guide=guide, **options)
    )


def infill(
    video: VideoFile,
    output: Output,
    missing: Annotated[str, typer.Option(help="Numbers of the frames to make, from 0: 4-11 or 1,3,5.")],
    model: Model = "bundled:emoji",
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

    from inflate.cascade.reconstruction import infill_video

    job = _Job(output, model, seed, steps, guidance_scale, None, force, device, dtype, quiet, as_json)
    source = read_video(video)
    known = torch.ones(source.num_frames, dtype=torch.bool)
    known[frame_numbers(missing, source.num_frames)] = False
    job.run(
        lambda cascade, options: infill_video(cascade, source, known, weight, prompt=prompt, guide=guide, **options)
    )


def frame_numbers(text: str, count: int) -> list[int]:
    """Frame numbers from 0, single ones and ranges with commas between.

    Raises:
        InputError: something else, or a number that none of the ``count`` frames has.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
            raise InputError(f"--missing is {text!r}; give frame numbers from 0 with commas between, such as 4-11,14.")
        numbers += range(int(first), min(int(last or first), count) + 1)
    if max(numbers) >= count:
        raise InputError(f"--missing is {text!r}; the video has {count} frames, numbered from 0 to {count - 1}.")
    return numbers


def vary(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
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
    job = _Job(output, model, seed, steps, guidance_scale, until, force, device, dtype, quiet, as_json)
    known = read_video(video)
    job.run(lambda cascade, options: cascade.vary(known, frames, fps, frame_skip, **options))


def upscale(
    video: VideoFile,
    output: Output,
    model: Model = "bundled:emoji",
    method: Annotated[
        str, typer.Option(help="super-resolution; or reconstruction: videos smaller than D^t's, by D^t alone.")
    ] = "super-resolution",
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
    """Enlarge a video of any length by the super-resolution stages, in memory that does not grow with its length."""
    check_method(method, ("super-resolution", "reconstruction"))
    job = _Job(output, model, seed, steps, "", until, force, device, dtype, quiet, as_json)
    if method == "super-resolution":
        job.stream(video)
        return
    from inflate.cascade.constrained import enlarge_video

    low = read_video(video)
    job.run(lambda cascade, options: enlarge_video(cascade, low, weight, prompt=prompt, **options))


def check_method(name: str, known: tuple[str, ...]) -> None:
    """``InputError`` for another ``--method``."""
    if name not in known:
        raise InputError(f"--method is {name!r}{nearest(name, known)}; use {' or '.join(known)}.")


class _Job:
    """One video to make: what all applications share of arguments, progress, writing and reporting."""

    def __init__(
        self,
        output: Path,
        model: str,
        seed: int,
        steps: str,
        guidance_scale: str,
        until: str | None,
        force: bool,
        device: str | None,
        dtype: str,
        quiet: bool,
        as_json: bool,
    ) -> None:
        from inflate.cascade import Cascade
        from inflate.data.writing import check_output

        check_output(output, overwrite=force)
        self.output, self.force, self.quiet, self.as_json = output, force, quiet, as_json
        self.start, self.seed = time.monotonic(), seed
        self.cascade = Cascade.from_pretrained(model, check_device(device), check_dtype(dtype))
        self.chosen = {
            "num_inference_steps": parse_by_stage("--steps", steps, int),
            "guidance_scale": parse_by_stage("--guidance-scale", guidance_scale, float),
        }
        self.until = until
        self.settings: dict[str, Any] = {"model": model, "seed": seed, "until": until, "dtype": dtype}

    def options(self, on_step: Callable[..., Any]) -> dict[str, Any]:
        """What a method of the cascade is called with."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        return self.chosen | {"generator": generator, "callback_on_step_end": on_step, "until": self.until}

    def run(self, make: "Callable[[Cascade, dict[str, Any]], Any]") -> None:
        """Make the video in memory and write it."""
        import numpy as np

        with progress_bar(self.quiet) as on_step:
            out = make(self.cascade, self.options(on_step))
        [video] = out.frames
        self.write(np.stack([np.asarray(picture) for picture in video]), out.fps)

    def stream(self, source: Path) -> None:
        """Upscale chunk by chunk."""
        from inflate.data import frame_times, iterate_frames, video_facts
        from inflate.data.sound import Sound
        from inflate.video import from_uint8, to_uint8

        facts, times = video_facts(source), frame_times(source)
        sound = Sound(source, times.origin)
        if reason := sound.why_not() if self.output.suffix.lower() == ".mp4" else "":
            typer.echo(f"The sound of {source} is left out: {reason}.", err=True)
        with progress_bar(self.quiet) as on_step:
            read = (from_uint8(chunk[None])[0] for chunk in iterate_frames(source))
            made = self.cascade.upscale_chunks(read, facts.num_frames, **self.options(on_step))
            shown = (to_uint8(chunk[None])[0] for chunk in made)
            self.write(shown, facts.fps, () if times.even() else times.spans, sound if sound.there() else None)

    def write(
        self,
        frames: "np.ndarray | Iterator[np.ndarray]",
        fps: float,
        spans: "Sequence[tuple[float, float]]" = (),
        sound: "Sound | None" = None,
    ) -> None:
        """Write the file and say so."""
        from inflate.data.writing import write_video

        write_video(self.output, frames, fps, self.force, spans, sound)
        used = self.cascade.settings(**self.chosen)
        settings = self.settings | {"fps": fps, "stages": {name: asdict(values) for name, values in used.items()}}
        seconds = round(time.monotonic() - self.start, 2)
        report_files([self.output], None, settings, seconds, self.quiet, self.as_json)


def read_picture(path: Path) -> "Image.Image":
    """A picture file.

    Raises:
        InputError: no such file, or not a picture that Pillow reads.
    """
    from PIL import Image, ImageOps

    if not path.is_file():
        raise InputError(f"There is no picture {path}.")
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image).copy()  # cameras store what the sensor saw
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise InputError(f"{path} cannot be read as a picture ({reason}); give a png, jpg or webp file.") from error


def read_video(path: Path) -> "Video":
    """A whole video file in memory.

    Raises:
        InputError: not a video, or one of more than a minute, which this way of working has no room for.
    """
    from inflate.data import decode_video, video_facts
    from inflate.video import Video

    facts = video_facts(path)
    if facts.duration > _MAX_SECONDS_IN_MEMORY:
        raise InputError(
            f"{path} lasts {facts.duration:.0f} s; this works on at most {_MAX_SECONDS_IN_MEMORY} s: cut it first."
        )
    decoded = decode_video(path)
    return Video(decoded.frames, decoded.fps or facts.fps)
