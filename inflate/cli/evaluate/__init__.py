"""``inflate evaluate``: measure a family of models, stage by stage and as a whole, on a prepared data set."""

import typer

from inflate.cli.evaluate.chain import frechet
from inflate.cli.evaluate.decoder import colour, denoising, motion, retrieval
from inflate.cli.evaluate.reconstruction import reconstruction
from inflate.cli.evaluate.seams import seams
from inflate.cli.evaluate.stages import interpolation, super_resolution


def register(app: typer.Typer) -> None:
    """Add ``evaluate`` and its measures."""
    evaluate = typer.Typer(
        name="evaluate", help="Measure a family of models on a prepared data set.", no_args_is_help=True
    )
    for command in (
        retrieval,
        denoising,
        motion,
        colour,
        interpolation,
        super_resolution,
        reconstruction,
        frechet,
        seams,
    ):
        evaluate.command()(command)
    app.add_typer(evaluate)
