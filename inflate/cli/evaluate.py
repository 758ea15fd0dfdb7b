"""``inflate evaluate``: does a model draw what was asked, denoise better than its image model, move like real clips?"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from inflate.evaluate.family import DecoderParts, GenerateClip
    from inflate.evaluate.things import Things

evaluate_app = typer.Typer(
    name="evaluate", help="Measure a family of models on a prepared data set.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="A family's folder, or bundled:emoji.")]
Data = Annotated[Path, typer.Argument(help="A folder that inflate prepare made, or a frame cache of one.")]
Seed = Annotated[int, typer.Option(help="Chooses prompts and noise.")]
Frames = Annotated[int, typer.Option(help="Frames in a clip.", min=2)]
Steps = Annotated[int | None, typer.Option(help="Sampling steps of the decoder; default: the family's own.", min=1)]
Guidance = Annotated[float | None, typer.Option(help="Guidance of the decoder; default: the family's own.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")]
Device = Annotated[str | None, typer.Option(help="Default: a GPU if there is one, else cpu.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Split = Annotated[str, typer.Option(help="train or test: where prompts and clips are from.")]


class _Family:
    """A cascade with what the measures ask of it; its weights stay loaded."""

    def __init__(
        self,
        model: str,
        device: str | None,
        dtype: str,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> None:
        import torch

        from inflate import Cascade, InputError
        from inflate.errors import nearest

        kinds = ("float32", "float16", "bfloat16")
        if dtype not in kinds:
            raise InputError(f"--dtype is {dtype!r}{nearest(dtype, kinds)}; use {', '.join(kinds)}")
        self.cascade = Cascade.from_pretrained(model, device, getattr(torch, dtype), keep_loaded=True)
        self.steps = None if steps is None else {"decoder": steps}
        self.guidance_scale = None if guidance_scale is None else {"decoder": guidance_scale}

    def components(self, stage_name: str) -> dict[str, Any]:
        """A stage's loaded networks by role."""
        from inflate import InputError

        for stage in self.cascade.stages:
            if stage.name == stage_name:
                stage.load(self.cascade.device, self.cascade.dtype)
                return stage.components  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(f"this measure needs a family with the stage {stage_name!r}; this one has none")

    def picture_size(self) -> int:
        """Side of the decoder's pictures in pixels."""
        import torch

        from inflate.models.decoder import decode_latents

        decoder = self.components("decoder")
        config = decoder["unet"].config
        size = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
        latents = torch.zeros(1, config.in_channels, size, size, device=self.cascade.device)
        return int(decode_latents(decoder.get("vae"), latents).shape[-1])

    def generator(self, things: "Things", from_image: bool = False) -> "GenerateClip":
        """What makes a clip of a thing: from its caption, or from the image embedding of its still."""
        import torch

        def generate(name: str, num_frames: int, fps: float, seed: int) -> "torch.Tensor":
            embeds = self.encode_image(things.stills_of([name]) * 2 - 1) if from_image else None
            made = self.cascade(
                None if from_image else things.caption(name),
                num_frames=num_frames,
                fps=fps,
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=self.steps,
                guidance_scale=self.guidance_scale,
                output_type="pt",
                until="decoder",
                image_embeds=embeds,
            )
            assert isinstance(made.frames, torch.Tensor), "the decoder stage makes frames"
            return made.frames.transpose(1, 2)

        return generate

    def encode_image(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Pixels ``(N, 3, S, S)`` in [-1, 1] to image embeddings ``(N, D)``."""
        import torch

        with torch.no_grad():
            return self.components("prior")["text_encoder"].encode_image(pixels)

    def reconstruct(self) -> "Callable[[torch.Tensor], torch.Tensor] | None":
        """Pictures in [0, 1] through the autoencoder and back; None in pixel space."""
        import torch

        from inflate.models.decoder import decode_latents, encode_pixels

        vae: Any = self.components("decoder").get("vae")

        def there_and_back(pictures: "torch.Tensor") -> "torch.Tensor":
            with torch.no_grad():
                parts = [encode_pixels(vae, part.to(vae.device) * 2 - 1) for part in pictures.split(16)]
                return (decode_latents(vae, torch.cat(parts)).cpu() + 1) / 2

        return None if vae is None else there_and_back

    def decoder_parts(self) -> "DecoderParts":
        """What the denoising loss is measured on."""
        from inflate import InputError
        from inflate.evaluate.family import DecoderParts
        from inflate.inflater import InflatedModel
        from inflate.models.decoder import encode_pixels, image_conditioning

        decoder = self.components("decoder")
        model, vae, scheduler = decoder["unet"], decoder.get("vae"), decoder["scheduler"]
        if not isinstance(model, InflatedModel):
            raise InputError(
                "this family's decoder is an image model without temporal layers; fine-tune it on video first"
            )
        return DecoderParts(
            video_model=model,
            alphas_cumprod=scheduler.alphas_cumprod,
            prediction_type=scheduler.config.prediction_type,
            encode_image=self.encode_image,
            encode_pixels=lambda pixels: pixels if vae is None else encode_pixels(vae, pixels),
            conditioning=image_conditioning,
        )


def _things(data: Path, size: int, split: str, quiet: bool) -> "Things":
    """The data at ``size`` pixels, from a prepared folder or from a cache built before."""
    from inflate import InputError
    from inflate.data import FrameCache, build_frame_cache
    from inflate.errors import nearest
    from inflate.evaluate.things import find_things

    if split not in ("train", "test"):
        raise InputError(f"--split is {split!r}{nearest(split, ('train', 'test'))}; use train or test")
    if not data.is_dir():
        raise InputError(f"there is no folder {data}; make one with: inflate prepare fluent-emoji {data}")
    if (data / "frames.bin").is_file():
        cache = FrameCache.open(data)
        if cache.size != size:
            raise InputError(
                f"{data} holds frames of {cache.size} px and the model makes {size} px; give the data itself"
            )
    else:
        cache = build_frame_cache(data, size, workers=os.cpu_count() or 1)
        if cache.report.skipped and not quiet:
            typer.echo(cache.report.sentence(), err=True)
    return find_things(cache)


def _numbers(option: str, text: str) -> list[float]:
    from inflate import InputError

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise InputError(f"{option} is {text!r}; give different numbers with commas between, such as 4,8,16,30")
    return numbers


@contextmanager
def _progress(what: str, total: int, quiet: bool) -> "Iterator[Callable[[], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_json(path: Path | None, report: dict[str, object]) -> None:
    if path is not None:
        _write(path, (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())


def register(app: typer.Typer) -> None:
    """Add ``evaluate`` and its three measures."""
    app.add_typer(evaluate_app)


@evaluate_app.command()
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

    features = EfficientNetFeatures()
    family = _Family(model, device, dtype, steps, guidance_scale)
    things = _things(data, family.picture_size(), split, quiet)
    generate = family.generator(things, from_image)
    with _progress("clips", prompts, quiet) as advance:
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
        _write(sheet, png_bytes(contact_sheet(result.generated, result.stills, labels, found, columns=10)))
    _write_json(
        json_file, {"measure": "retrieval", "model": model, "from_image": from_image, "fps": fps, **report.as_dict()}
    )


@evaluate_app.command()
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

    rates, levels = _numbers("--fps", fps), [int(level) for level in _numbers("--timesteps", timesteps)]
    family = _Family(model, device, dtype)
    parts = family.decoder_parts()
    things = _things(data, family.picture_size(), split, quiet)
    with _progress("noise levels", len(rates) * len(levels), quiet) as advance:
        report = evaluate_denoising(parts, things, split, clips, seed, frames, rates, levels, batch_size, advance)
    typer.echo(markdown_table(report))
    better = sum(video < image for image, video in report.by_timestep().values())
    rows = sum(row.video_model < row.image_model for row in report.rows)
    typer.echo(
        f"{split} split, {report.clips} clips: the video model's loss is the lower one at {better} of {len(levels)} "
        f"noise levels, and in {rows} of {len(report.rows)} pairs of frame rate and noise level"
    )
    _write_json(json_file, {"measure": "denoising", "model": model, "split": split, **report.as_dict()})


@evaluate_app.command()
def motion(
    model: Model,
    data: Data,
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
    """Do generated clips move as much as real ones, and less from frame to frame at a higher frame rate?"""
    from inflate.evaluate.family import evaluate_motion

    rates = _numbers("--fps", fps)
    family = _Family(model, device, dtype, steps, guidance_scale)
    things = _things(data, family.picture_size(), split, quiet)
    with _progress("clips", prompts * len(rates), quiet) as advance:
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
    _write_json(json_file, {"measure": "motion", "model": model, "split": split, **report.as_dict()})
