"""``inflate generate``: prompts in, video files and a contact sheet out."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.checks import check_device, check_dtype, check_model, parse_sampling
from inflate.cli.options import (
    AsJson,
    Device,
    Dtype,
    Force,
    FrameSkip,
    GuidanceInterval,
    GuidanceOscillate,
    GuidanceRescale,
    GuidanceScale,
    InitImage,
    LongFrames,
    Loras,
    Model,
    PromptAt,
    Prompts,
    Quiet,
    Reuse,
    Scale,
    Seed,
    Side,
    Steps,
    Strength,
    Threshold,
    Transition,
    Until,
    Variant,
)
from inflate.cli.reporting import notes, report_files
from inflate.errors import InputError, nearest

if TYPE_CHECKING:
    from inflate.cascade import Cascade
    from inflate.stages import Segment

_FRAMES = 16  # of a model that says no number
RESAMPLES = ("nearest", "lanczos")


def register(app: typer.Typer) -> None:
    """Add ``generate``."""
    app.command()(generate)


def generate(
    output: Annotated[Path, typer.Option("-o", "--output", help="A .mp4, .webp or .gif; several prompts: out-1.mp4 …")],
    prompts: Prompts = None,
    model: Model = "bundled:emoji",
    variant: Variant = None,
    frames: LongFrames = None,
    prompt_at: PromptAt = None,
    transition: Transition = 1.0,
    fps: Annotated[float, typer.Option(help="Frames per second: told to the model, and how fast the file plays.")] = 8,
    loras: Loras = None,
    init_image: InitImage = None,
    strength: Strength = None,
    negative_prompt: Annotated[str, typer.Option(help="What guidance goes away from; for models told a text.")] = "",
    height: Side = None,
    width: Side = None,
    seed: Seed = 0,
    steps: Steps = "",
    guidance_scale: GuidanceScale = "",
    guidance_rescale: GuidanceRescale = "",
    guidance_oscillate: GuidanceOscillate = "",
    guidance_interval: GuidanceInterval = "",
    reuse: Reuse = "",
    threshold: Threshold = "",
    frame_skip: FrameSkip = 5,
    until: Until = None,
    scale: Scale = 1,
    resample: Annotated[str, typer.Option(help="How --scale enlarges: nearest or lanczos.")] = "nearest",
    sheet: Annotated[bool, typer.Option(help="Write a contact sheet beside the video (out.sheet.png).")] = True,
    save_settings: Annotated[bool, typer.Option("--save-settings", help="Write the settings to out.json.")] = False,
    force: Force = False,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a video of any length from each prompt, and a contact sheet with a row per prompt."""
    _check_options(resample, transition)
    chosen = parse_sampling(
        steps,
        guidance_scale,
        guidance_rescale=guidance_rescale,
        guidance_oscillate=guidance_oscillate,
        guidance_interval=guidance_interval,
        threshold=threshold,
        reuse=reuse,
    )
    from inflate.cli.making import Job
    from inflate.data.writing import enlarge, write_contact_sheet, write_text

    names = prompts or [""]
    videos, sheet_path, settings_path = _outputs(output, len(names), sheet, save_settings, force)
    start = time.monotonic()
    cascade = _opened(model, variant, device, dtype, prompts)
    drawn = {"variant": variant} | _configure(cascade, negative_prompt, height, width) | add_loras(cascade, loras or [])
    begin = _beginning(init_image, strength)
    options = chosen | begin | {"frame_skip": frame_skip, "until": until}
    options["segments"] = parse_segments(prompt_at or [], transition)
    frames = frames or cascade.window_size() or _FRAMES
    job = Job(cascade, prompts or [], frames, fps, seed, quiet, options)
    job.check()
    with notes(quiet):
        shown, shown_fps = job.write(videos, lambda made: enlarge(made, scale, resample), force)  # pyright: ignore[reportArgumentType]
    if sheet:
        write_contact_sheet(sheet_path, shown, names, overwrite=force)
    settings = {"model": model} | job.record() | {"shown_fps": shown_fps, "scale": scale, "resample": resample}
    settings |= {"dtype": dtype} | drawn | (begin | {"init_image": str(init_image)} if begin else {})
    settings |= {"prompt_at": prompt_at, "transition": transition} if prompt_at else {}
    if save_settings:
        write_text(settings_path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n", overwrite=force)
    report_files(videos, sheet_path if sheet else None, settings, round(time.monotonic() - start, 2), quiet, as_json)


def _outputs(output: Path, count: int, sheet: bool, save_settings: bool, force: bool) -> tuple[list[Path], Path, Path]:
    """Where videos, contact sheet and settings go; ``InputError`` before any work where one cannot be written."""
    from inflate.data.writing import check_output

    check_output(output, overwrite=True)  # the name alone; what exists is looked at below
    videos = [output] if count == 1 else [numbered(output, number + 1) for number in range(count)]
    sheet_path, settings_path = (_beside(output, suffix, force) for suffix in (".sheet.png", ".json"))
    for path in videos:
        check_output(path, overwrite=force)
    if sheet:
        check_output(sheet_path, (".png",), force)
    if save_settings:
        check_output(settings_path, (".json",), force)
    return videos, sheet_path, settings_path


def _beside(output: Path, suffix: str, force: bool) -> Path:
    """``out.sheet.png`` beside ``out.mp4``; ``out.gif.sheet.png`` where another video of that stem has the first."""
    from inflate.data.writing import VIDEO_SUFFIXES

    path = output.with_suffix(suffix)
    others = (output.with_suffix(kind) for kind in VIDEO_SUFFIXES if kind != output.suffix.lower())
    if force or not path.exists() or not any(other.exists() for other in others):
        return path
    return output.with_name(f"{output.name}{suffix}")


def _configure(cascade: "Cascade", negative_prompt: str, height: int | None, width: int | None) -> dict[str, Any]:
    """Tell the decoder what to stay away from and how large to draw, where it can; returns what was changed."""
    decoder: Any = cascade.stage("decoder")
    reads = getattr(getattr(decoder, "conditioner_class", None), "reads", "image")
    changes: dict[str, Any] = {}
    if negative_prompt:
        if reads != "text":
            raise InputError("--negative-prompt is for models that are told a text (Stable Diffusion, PixArt, …).")
        changes["negative_prompt"] = negative_prompt
    if height or width:
        if reads == "image":
            raise InputError("--height and --width are for decoders that draw any size; this one's sizes are fixed.")
        usual = decoder.picture_size()
        changes |= {"height": height or usual[0], "width": width or usual[1]}
    if changes:
        decoder.config = replace(decoder.config, **changes)
        decoder.picture_size()  # refuses what it cannot draw
    return changes


def _beginning(init_image: Path | None, strength: float | None) -> dict[str, Any]:
    """What of ``--init-image`` and ``--strength`` a cascade is called with."""
    if init_image is None:
        if strength is not None:
            raise InputError("--strength goes with --init-image, from which frames begin; name a picture.")
        return {}
    from inflate.cli.video_job import read_picture

    return {"init_image": read_picture(init_image), "strength": 0.8 if strength is None else strength}


def add_loras(cascade: "Cascade", texts: list[str]) -> dict[str, Any]:
    """Add what ``--lora`` names to the decoder; returns what was added."""
    chosen = [parse_lora(text) for text in texts]
    added = [{"file": str(path), "weight": weight, "kind": cascade.load_lora(path, weight)} for path, weight in chosen]
    return {"loras": added} if added else {}


def _check_options(resample: str, transition: float) -> None:
    if resample not in RESAMPLES:
        raise InputError(f"--resample is {resample!r}{nearest(resample, RESAMPLES)}; use {' or '.join(RESAMPLES)}.")
    if not math.isfinite(transition):
        raise InputError(f"--transition is {transition}; give a number of seconds.")


def parse_lora(text: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:WEIGHT``; the colon of a drive (``C:\\x.safetensors``) is the file's."""
    file, colon, tail = text.rpartition(":")
    try:
        weight = float(tail) if colon else 1.0
    except ValueError:
        weight = 1.0 if text.endswith(".safetensors") else math.nan
        file = text
    path = file if colon else text
    if not path or not math.isfinite(weight):
        raise InputError(f"--lora is {text!r}; give a .safetensors file, or FILE:WEIGHT such as style.safetensors:0.8.")
    return Path(path), weight


def parse_segments(texts: list[str], transition: float) -> "list[Segment]":
    """``["8=a moon"]`` -> what to show from second 8 on."""
    from inflate.stages import Segment

    segments = []
    for text in texts:
        seconds, _, prompt = text.partition("=")
        try:
            segments.append(Segment(float(seconds), prompt.strip(), transition))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f'--prompt-at is {text!r}; give SECONDS=TEXT, such as 8="a moon".') from None
    return sorted(segments, key=lambda one: one.seconds)


def numbered(path: Path, number: int) -> Path:
    """``out.mp4`` -> ``out-3.mp4``."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _opened(model: str, variant: str | None, device: str | None, dtype: str, prompts: list[str] | None) -> "Cascade":
    """The cascade; ``InputError`` where one that is told something gets no prompt, or one told nothing gets one."""
    from inflate.cascade import Cascade

    place = check_device(device), check_dtype(dtype)
    cascade = Cascade.from_pretrained(check_model(model), *place, variant=variant)
    if prompts and cascade.told_nothing():
        raise InputError("This model is told nothing of what to show, so a prompt would change nothing; leave it out.")
    if not prompts and not cascade.told_nothing():
        raise InputError('Say what to show, such as inflate generate "party popper" -o out.mp4.')
    return cascade
