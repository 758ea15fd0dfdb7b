"""``inflate import`` and ``inflate export``: motion modules of other programs, and ours for them."""

from pathlib import Path
from typing import Annotated

import typer

from inflate.cli.options import Variant

Force = Annotated[bool, typer.Option("--force", help="Replace what is at DST.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    motion: Annotated[
        str,
        typer.Argument(
            help="An AnimateDiff or Hotshot-XL file, or a MotionAdapter's folder or file.", metavar="MOTION"
        ),
    ],
    image_model: Annotated[
        str,
        typer.Argument(help="What inflate convert takes: a folder, a single file, a hub name.", metavar="IMAGE_MODEL"),
    ],
    destination: Annotated[Path, typer.Argument(help="The folder to make.", metavar="DST")],
    frames: Annotated[int, typer.Option("--frames", help="Frames of a clip.", min=1)] = 16,
    lora: Annotated[
        list[str] | None, typer.Option("--lora", help="A MotionLoRA to add; may be repeated, FILE or FILE=SCALE.")
    ] = None,
    scheduler: Annotated[
        bool, typer.Option("--scheduler", help="Give the copy the noise levels that the module was trained with.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open .ckpt and the like too, as nothing but tensors.")
    ] = False,
    config: Annotated[
        str | None, typer.Option("--config", help="For a single file: the config.json of its image model.")
    ] = None,
    variant: Variant = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a motion module onto an image model: DST is an inflated folder of the two."""
    from inflate.checkpoint.formats import import_motion

    loras = [_scaled(one) for one in lora or ()]
    done = import_motion(
        motion, image_model, destination, frames, loras, scheduler, allow_pickle, force, config, variant
    )
    if json:
        print(done.to_json())
    elif not quiet:
        for note in done.notes:
            print(f"note: {note}")
        print(
            f"wrote {done.destination}: scheme {done.scheme}, at most {done.max_frames} frames, "
            f"{done.used} tensors of the file used, {len(done.ignored)} left out"
        )


def export(
    source: Annotated[str, typer.Argument(help="An inflated folder, or a temporal.safetensors.", metavar="SRC")],
    destination: Annotated[Path, typer.Argument(help="The file, or for motion-adapter the folder.", metavar="DST")],
    to: Annotated[str, typer.Option("--to", help="motion-adapter, animatediff or hotshot.")],
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write an inflated model's motion modules for diffusers, ComfyUI and AnimateDiff, or Hotshot-XL."""
    from inflate.checkpoint.formats import export_motion

    done = export_motion(source, destination, to, force)
    if not quiet:
        print(f"wrote {done.destination}: {done.num_tensors} tensors as {done.to}")


def is_other_weights(model: str, allow_pickle: bool) -> bool:
    """Whether a name is that of a MotionAdapter's folder, or of a file of weights that are no image model's."""
    path = Path(model).expanduser()
    config = path / "config.json"
    if config.is_file():
        return '"MotionAdapter"' in config.read_text(errors="replace")
    if not path.is_file() or path.suffix.lower() == ".toml":
        return False
    from inflate.checkpoint.formats import is_image_model

    return not is_image_model(path, allow_pickle)


def print_file(model: str, base: str | None, allow_pickle: bool, json: bool, quiet: bool) -> None:
    """What a file of weights is, for ``inflate inspect``."""
    from inflate.checkpoint.formats import inspect_file

    found = inspect_file(model, base, allow_pickle)
    if json:
        print(found.to_json())
    elif not quiet:
        version = f", {found.version}" if found.version else ""
        print(f"{found.path}: {found.kind}{version}")
        print(f"{found.parameters:,} parameters, {', '.join(found.dtypes)}")
        if found.fits:
            print(f"made for {found.fits}")
        if found.max_frames:
            print(f"at most {found.max_frames} frames; positions: {found.positions}")
        for note in found.notes:
            print(f"note: {note}")
        if base is not None:
            print(f"it fits {base}" if found.why_not is None else f"it does not fit {base}: {found.why_not}")


def _scaled(text: str) -> tuple[str, float]:
    """FILE or FILE=SCALE."""
    from inflate.errors import InputError

    path, separator, scale = text.rpartition("=")
    if not separator:
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise InputError(f"--lora {text}: {scale!r} is no number; write FILE or FILE=SCALE") from None
