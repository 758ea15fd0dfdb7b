"""Does the decoder draw what was asked, denoise better than its image model, move like real clips?"""

from pathlib import Path
from typing import Annotated

import typer

from inflate.cli.evaluate.clip_by_clip import motion_of_videos
from inflate.cli.evaluate.family import Family, read_things
from inflate.cli.evaluate.options import (
    Data,
    Device,
    Dtype,
    Frames,
    Guidance,
    Json,
    Model,
    Quiet,
    Seed,
    Split,
    Steps,
    check_asked,
    parse_numbers,
    progress_bar,
    write_file,
    write_json,
)


def retrieval(
    model: Model,
    data: Data,
    split: Split = "train",
    prompts: Annotated[int, typer.Option(help="How many things to prompt.", min=1)] = 100,
    top: Annotated[int, typer.Option(help="Found means among the nearest this many stills.", min=1)] = 5,
    fps: Annotated[float, typer.Option(help="Frame rate of the generated clips.")] = 8.0,
    from_image: Annotated[
        bool, typer.Option("--from-image", help="Start from the true still's embedding: how well does D^t do alone?")
    ] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write generated frames beside true stills to this PNG.")] = None,
    seed: Seed = 0,
    frames: Frames = 16,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Is the still nearest to each generated clip's middle frame that of the prompted thing?"""
    from inflate.evaluate.family import evaluate_retrieval
    from inflate.evaluate.features import EfficientNetFeatures
    from inflate.evaluate.sheet import contact_sheet, png_bytes

    check_asked(json_file, sheet, data, split, fps)
    features = EfficientNetFeatures()
    family = Family(model, device, dtype, steps, guidance_scale)
    things = read_things(data, family.picture_size(), quiet)
    generate = family.generator(things, from_image)
    with progress_bar("clips", prompts, quiet) as advance:
        result = evaluate_retrieval(
            generate, things, features, family.reconstruct(), split, prompts, seed, top, frames, fps, advance
        )
    report = result.report
    score = report.score
    typer.echo(
        f"{split} split: the prompted thing is within the {top} nearest of {score.gallery} stills for {score.top_k} "
        f"of {score.queries} prompts, the nearest for {score.top_1}; mean rank {score.mean_rank:.1f}, "
        f"median {score.median_rank:g}"
    )
    for description, ceiling in report.ceilings.items():
        typer.echo(
            f"  ceiling, {description}: {ceiling.top_k} of {ceiling.queries}, nearest for {ceiling.top_1}; "
            f"mean rank {ceiling.mean_rank:.1f}"
        )
    if sheet is not None:
        labels = [f"{prompt.rank} {prompt.caption}" for prompt in report.prompts]
        found = [prompt.rank <= top for prompt in report.prompts]
        write_file(sheet, png_bytes(contact_sheet(result.generated, result.stills, labels, found, columns=10)))
    write_json(
        json_file, {"measure": "retrieval", "model": model, "from_image": from_image, "fps": fps, **report.as_dict()}
    )


def denoising(
    model: Model,
    data: Data,
    split: Split = "test",
    clips: Annotated[int | None, typer.Option(help="How many clips; default: all of the split.", min=1)] = None,
    fps: Annotated[str, typer.Option(help="Frame rates, with commas.")] = "4,8,16,30",
    timesteps: Annotated[
        str, typer.Option(help="Noise levels, with commas.")
    ] = "50,150,250,350,450,550,650,750,850,950",
    batch_size: Annotated[int, typer.Option(help="Clips in one call.", min=1)] = 4,
    seed: Seed = 0,
    frames: Frames = 16,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Is the video model's denoising loss below that of its image model frame by frame, at every noise level?"""
    from inflate.evaluate.denoising import markdown_table
    from inflate.evaluate.family import evaluate_denoising

    rates, levels = parse_numbers("--fps", fps), [int(level) for level in parse_numbers("--timesteps", timesteps)]
    check_asked(json_file, None, data, split, *rates)
    family = Family(model, device, dtype)
    parts = family.decoder_parts()
    things = read_things(data, family.picture_size(), quiet)
    with progress_bar("noise levels", len(rates) * len(levels), quiet) as advance:
        report = evaluate_denoising(parts, things, split, clips, seed, frames, rates, levels, batch_size, advance)
    typer.echo(markdown_table(report))
    better = sum(video < image for image, video in report.by_timestep().values())
    rows = sum(row.video_model < row.image_model for row in report.rows)
    typer.echo(
        f"{split} split, {report.clips} clips: the video model's loss is the lower one at {better} of {len(levels)} "
        f"noise levels, and in {rows} of {len(report.rows)} pairs of frame rate and noise level"
    )
    write_json(json_file, {"measure": "denoising", "model": model, "split": split, **report.as_dict()})


def motion(
    model: Annotated[
        str, typer.Argument(help="A family's folder, or bundled:emoji; without DATA: a folder of videos.")
    ],
    data: Annotated[
        Path | None, typer.Argument(help="A folder that inflate prepare made, or a frame cache of one.")
    ] = None,
    split: Split = "train",
    prompts: Annotated[int, typer.Option(help="How many animated things to prompt.", min=1)] = 32,
    fps: Annotated[str, typer.Option(help="Frame rates, with commas.")] = "4,8,16,30",
    seed: Seed = 0,
    frames: Frames = 16,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Do generated clips move as much as real ones, and less from frame to frame at a higher frame rate?

    Of a folder of videos, without DATA: how far flow goes between neighbouring frames, in shares of the diagonal.
    """
    from inflate.evaluate.family import evaluate_motion

    if data is None:
        return motion_of_videos(Path(model), frames, seed, json_file, quiet)
    rates = parse_numbers("--fps", fps)
    check_asked(json_file, None, data, split, *rates)
    family = Family(model, device, dtype, steps, guidance_scale)
    things = read_things(data, family.picture_size(), quiet)
    with progress_bar("clips", prompts * len(rates), quiet) as advance:
        report = evaluate_motion(family.generator(things), things, split, prompts, seed, frames, rates, advance)
    typer.echo("| fps | generated | real | generated / real | within 0.5 to 2 |\n| ---: | ---: | ---: | ---: | --- |")
    for row in report.rows:
        verdict = "yes" if row.within_bounds else "no"
        typer.echo(f"| {row.fps:g} | {row.generated:.5f} | {row.real:.5f} | {row.ratio:.2f} | {verdict} |")
    typer.echo(
        f"{split} split, {len(report.prompts)} prompts: generated motion "
        f"{'falls' if report.generated_falls_with_fps else 'does not fall'} at every step to a higher frame rate, "
        f"real motion {'does' if report.real_falls_with_fps else 'does not'}"
    )
    write_json(json_file, {"measure": "motion", "model": model, "split": split, **report.as_dict()})


def colour(
    model: Model,
    data: Data,
    split: Split = "train",
    prompts: Annotated[int, typer.Option(help="How many animated things to prompt.", min=1)] = 8,
    fps: Annotated[float, typer.Option(help="Frame rate of the clips.")] = 8.0,
    seed: Seed = 0,
    frames: Frames = 16,
    steps: Steps = None,
    guidance_scale: Guidance = None,
    json_file: Json = None,
    device: Device = None,
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Does the mean colour of generated clips stay as steady as that of real ones?"""
    from inflate.evaluate.colour import measure_colour
    from inflate.evaluate.family import prompt_seed
    from inflate.evaluate.retrieval import choose_names

    check_asked(json_file, None, data, split, fps)
    family = Family(model, device, dtype, steps, guidance_scale)
    things = read_things(data, family.picture_size(), quiet)
    generate = family.generator(things)
    names = choose_names(things.names(split, with_clip=True), prompts, seed)
    with progress_bar("clips", prompts, quiet) as advance:
        report = measure_colour(
            names,
            lambda name: generate(name, frames, fps, prompt_seed(seed, name)).float().cpu(),
            lambda name: things.clip_of(name, fps, frames),
            advance,
        )
    offset = ", ".join(f"{value:+.4f}" for value in report.offset)
    typer.echo(
        f"{split} split, {report.clips} clips of {frames} frames: from the first to the last frame the mean colour "
        f"goes by {report.generated.trend:.4f} (at most {report.worst.trend:.4f}; real {report.real.trend:.4f}), and "
        f"no frame is further from its clip's than {report.worst.spread:.4f} ({report.generated.spread:.4f} on "
        f"average; real {report.real.spread:.4f}); generated clips are brighter by {offset}"
    )
    write_json(json_file, {"measure": "colour", "model": model, "split": split, "fps": fps, **report.as_dict()})
