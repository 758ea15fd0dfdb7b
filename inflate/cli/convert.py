"""``inflate convert``, ``inspect``, ``verify`` and ``deflate``: image models into video models, and back."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inflate.cli.checks import check_device, check_dtype
from inflate.cli.options import Variant

if TYPE_CHECKING:
    from inflate.inflater import InflatedModel, Report, Scheme

Source = Annotated[
    str,
    typer.Argument(
        help="A diffusers folder (a pipeline's or a model's), a .safetensors file, or org/name on a model hub.",
        metavar="SRC",
    ),
]
Destination = Annotated[Path, typer.Argument(help="The folder to make.", metavar="DST")]
SchemeName = Annotated[str, typer.Option("--scheme", help="Which temporal layers; 'inflate schemes' lists them.")]
Frames = Annotated[int, typer.Option("--frames", help="Frames of a clip in training.", min=1)]
Force = Annotated[bool, typer.Option("--force", help="Replace DST if it is a model's folder.")]
Config = Annotated[
    str | None,
    typer.Option("--config", help="For a single file: a config.json, or a folder with it, of its image model."),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read .ckpt, .bin and .pt too: tensors only, nothing in them is run.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("convert")(convert)
    app.command("inspect")(inspect)
    app.command("verify")(verify)
    app.command("deflate")(deflate)


def convert(
    source: Source,
    destination: Destination,
    scheme: SchemeName = "make-a-video",
    frames: Frames = 16,
    temporal_only: Annotated[
        bool, typer.Option("--temporal-only", help="Write only temporal.safetensors, to use with the model in SRC.")
    ] = False,
    force: Force = False,
    config: Config = None,
    variant: Variant = None,
    allow_pickle: AllowPickle = False,
    hard_link: Annotated[
        bool, typer.Option("--hard-link", help="Share large files with SRC: no time, no space, written into together.")
    ] = False,
    prediction: Annotated[
        str, typer.Option("--prediction", help="For a single file: epsilon or v_prediction. Default: what it says.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn an image model into a video model that gives, until it is trained, the same pictures bit for bit."""
    from inflate.checkpoint import convert as run

    done = run(
        source,
        destination,
        scheme,
        frames,
        temporal_only,
        force,
        config,
        variant,
        allow_pickle,
        hard_link,
        prediction,
    )
    if json:
        print(done.to_json())
    elif not quiet:
        _print_report(done.report)
        rewritten = "image weights rewritten as safetensors, " if done.rewritten else ""
        print(
            f"wrote {done.destination} ({done.num_files_copied} files copied as they were, {rewritten}1 temporal file)"
        )


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder of diffusers, a single file, org/name on the hub, bundled:NAME, or any weights (LoRA, …)",
            metavar="MODEL",
        ),
    ],
    scheme: Annotated[
        str, typer.Option("--scheme", help="For an image model: the scheme whose cost to show.")
    ] = "make-a-video",
    frames: Annotated[int, typer.Option("--frames", help="For an image model: frames of a clip.", min=1)] = 16,
    sites: Annotated[bool, typer.Option("--sites", help="List every place where a temporal layer goes.")] = False,
    base: Annotated[
        str | None, typer.Option("--base", help="For a motion module: an image model, and why it does not fit it.")
    ] = None,
    config: Config = None,
    variant: Variant = None,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in a model's folder, or what inflating it would add; reads no weights."""
    from inflate.checkpoint import inspect as run
    from inflate.cli.formats import is_other_weights, print_file

    if is_other_weights(model, allow_pickle):
        print_file(model, base, allow_pickle, json, quiet)
        return
    found = run(model, scheme, frames, config, variant, allow_pickle)
    if json:
        print(found.to_json())
        return
    if quiet:
        return
    print(f"{found.folder}: {found.image_model_class}, {', '.join(found.dtypes)}, {found.image_bytes / 1e6:.1f} MB")
    if found.noise:
        print(f"it says of itself: {found.noise}")
    if found.temporal is None:
        print(f"an image model, not inflated; with scheme {found.report.scheme!r} it would become:")
    else:
        print(f"inflated, scheme {found.report.scheme!r}, {found.temporal['tensors']} temporal tensors")
    _print_report(found.report, sites)


def verify(
    model: Annotated[
        str,
        typer.Argument(
            help="An inflated folder, an image model's folder or single file, bundled:NAME, or a config.json "
            "(random weights).",
            metavar="MODEL",
        ),
    ],
    scheme: Annotated[
        str, typer.Option("--scheme", help="For an image model, and with --fresh: the scheme to attach.")
    ] = "make-a-video",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Put new temporal layers on the image model instead of the trained ones.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option("--frames", help="Frames to compare. Default: the model's, 16 for new layers.", min=1)
    ] = None,
    size: Annotated[int | None, typer.Option("--size", help="Height and width. Default: the config's.", min=1)] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Chooses the input, and the weights of a bare config.", min=0, max=2**63 - 1)
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16 or bfloat16.")] = "float32",
    config: Config = None,
    variant: Variant = None,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the image model and the inflated model on the same random input; exit code 1 if any frame differs."""
    from inflate.evaluate.equality import verify as run

    check_device(device)
    source = {"config": config, "variant": variant, "allow_pickle": allow_pickle}
    video_model, was_trained = _open(model, scheme, fresh, frames or 16, seed, device, check_dtype(dtype), source)
    outcome = run(video_model, frames, None if size is None else (size, size), seed)
    if json:
        print(outcome.to_json())
    elif not quiet:
        print(
            f"{outcome.image_model_class}, scheme {outcome.scheme}, {outcome.num_frames} frames of "
            f"{outcome.height}x{outcome.width}, {outcome.dtype} on {outcome.device}, seed {outcome.seed}"
        )
        print(outcome.sentence())
        if was_trained and not outcome.equal:
            print(
                "its temporal layers are trained, so its frames differ from the image model's, as they should; "
                "--fresh verifies its image model with new temporal layers"
            )
    if not outcome.equal:
        raise typer.Exit(1)


def deflate(
    source: Annotated[str, typer.Argument(help="A folder that inflate convert made.", metavar="SRC")],
    destination: Destination,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Take the temporal weights out again: every other file as it was, byte for byte."""
    from inflate.checkpoint import deflate_folder

    num_files = deflate_folder(source, destination, force)
    if not quiet:
        print(f"wrote {destination} ({num_files} files, as they were)")


def _open(
    model: str,
    scheme: "str | Scheme",
    fresh: bool,
    frames: int,
    seed: int,
    device: str,
    dtype: Any,
    source_options: dict[str, Any],
) -> "tuple[InflatedModel, bool]":
    """The model to verify, and whether its temporal layers come from a file."""
    import torch

    from inflate.checkpoint import find_source, load, load_image_model, read_config
    from inflate.inflater import inflate

    path = Path(model).expanduser()
    if path.suffix == ".json":
        config, image_model_class = read_config(path)
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(seed)
            image_model = image_model_class.from_config(config).eval()
            if dtype != torch.float32:
                torch.nn.Module.to(image_model, dtype=dtype)  # diffusers' own warns of a list that is empty here
            return inflate(image_model, scheme, frames), False
    source = find_source(model, **source_options)
    if source.temporal_file.is_file() and not fresh:
        return load(source, device, dtype), True
    return inflate(load_image_model(source, device, dtype), scheme, frames), False


def _print_report(report: "Report", sites: bool = False) -> None:
    """Tables of what went where and what it costs."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    if sites:
        table = Table("site", "temporal layer", "channels", "parameters", title=f"{len(report.sites)} sites")
        for site in report.sites:
            table.add_row(site.name, site.layer, str(site.channels), f"{site.new_parameters:,}")
        console.print(table)
    kinds: dict[str, list[int]] = {}
    for site in report.sites:
        kinds.setdefault(site.layer, []).append(site.new_parameters)
    table = Table("", "layers", "parameters", "share", title=f"{report.image_model_class}, scheme {report.scheme}")
    table.add_row("image model", "", f"{report.image_parameters:,}", "1")
    for layer, numbers in kinds.items():
        share = sum(numbers) / report.image_parameters
        table.add_row(layer, str(len(numbers)), f"{sum(numbers):,}", f"{share:.3f}")
    table.add_row("all new", str(len(report.sites)), f"{report.new_parameters:,}", f"{report.parameter_ratio:.3f}")
    console.print(table)
    if report.image_flops is None or report.new_flops is None:
        console.print("its arithmetic cannot be counted without weights")
        return
    console.print(
        f"one pass over {report.num_frames} frames of {report.height}x{report.width}: "
        f"{report.image_flops / 1e12:.3f} TFLOP for the image model, {report.new_flops / 1e12:.3f} more "
        f"for time ({report.flop_ratio:.3f} of it)"
    )
