"""``inflate schemes``: the table of schemes and, for a model, what each would add to it."""

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("schemes")(schemes)


def schemes(
    model: Annotated[
        str | None,
        typer.Argument(help="A diffusers folder or a config.json: say what each scheme adds to it.", metavar="[MODEL]"),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", help="Frames of a clip.", min=1)] = 16,
    size: Annotated[
        int | None, typer.Option("--size", help="Height and width of the sample. Default: the config's.", min=1)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """List the schemes; with a model, the new parameters and arithmetic of each. Reads no weights."""
    from inflate.inflater import SCHEMES

    image_model = None if model is None else _meta_model(model)
    rows = [_row(scheme, image_model, frames, size) for scheme in SCHEMES.values()]
    if json:
        print(json_module.dumps(rows, indent=2))
    elif not quiet:
        _print(rows, image_model)


def _meta_model(model: str) -> Any:
    from inflate.checkpoint import find_source, read_config
    from inflate.inflater import meta_image_model

    path = Path(model).expanduser()
    if path.suffix == ".json":
        config, image_model_class = read_config(path)
        return meta_image_model(image_model_class, config)
    return find_source(model).meta_model()


def _row(scheme: Any, image_model: Any, frames: int, size: int | None) -> dict[str, Any]:
    """What a scheme is, and its cost for the model if there is one."""
    from inflate.errors import InputError
    from inflate.inflater import report

    row = {
        "scheme": scheme.name,
        "adds": scheme.adds(),
        "positions": scheme.position if scheme.max_frames is None else f"{scheme.position}, {scheme.max_frames} frames",
        "start": "the image model" if scheme.starts_as_image_model else "equal frames as the image model",
        "source": scheme.source,
    }
    if image_model is None:
        return row
    try:
        least = scheme.max_frames or frames
        what = report(image_model, scheme, min(frames, least), None if size is None else (size, size))
    except InputError as error:
        return {**row, "refused": str(error)}
    return {
        **row,
        "new_parameters": what.new_parameters,
        "parameter_ratio": what.parameter_ratio,
        "flop_ratio": None if what.flop_ratio is None else 1 + what.flop_ratio,
    }


def _print(rows: list[dict[str, Any]], image_model: Any) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    if image_model is None:
        table = Table(Column("scheme", no_wrap=True), "adds", "positions", "starts as", "source")
        for row in rows:
            table.add_row(row["scheme"], row["adds"], row["positions"], row["start"], row["source"])
    else:
        names = ("scheme", "new parameters", "share", "arithmetic")
        table = Table(*(Column(name, no_wrap=True) for name in names), title=type(image_model).__name__)
        for row in rows:
            if "refused" not in row:
                count, share = f"{row['new_parameters']:,}", f"{row['parameter_ratio']:.3f}"
                arithmetic = "not counted" if row["flop_ratio"] is None else f"{row['flop_ratio']:.3f}"
                table.add_row(row["scheme"], count, share, arithmetic)
    Console(file=sys.stdout).print(table)
    for row in rows:
        if "refused" in row:
            print(f"{row['scheme']} does not apply: {_reason(row['refused'])}")


def _reason(sentence: str) -> str:
    """The middle of a refusal: between the model's name and what to do instead."""
    return sentence.partition(": ")[2].partition(";")[0]
