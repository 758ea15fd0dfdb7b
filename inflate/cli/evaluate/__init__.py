"""``inflate evaluate``: measure a family of models, stage by stage, on a prepared data set; or folders of videos."""

import typer

from inflate.cli.evaluate.chain import frechet
from inflate.cli.evaluate.clip_by_clip import clipsim, compare, consistency, warping
from inflate.cli.evaluate.decoder import colour, denoising, motion, retrieval
from inflate.cli.evaluate.reconstruction import reconstruction
from inflate.cli.evaluate.seams import seams
from inflate.cli.evaluate.stages import interpolation, super_resolution
from inflate.cli.evaluate.videos import fid, fvd, inception_score, kvd


def register(app: typer.Typer) -> None:
    """Add ``evaluate`` and its measures."""
    evaluate = typer.Typer(
        name="evaluate",
        help="Measure a family of models on a prepared data set, or folders of videos.",
        no_args_is_help=True,
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
        fvd,
        kvd,
        fid,
        clipsim,
        consistency,
        warping,
        compare,
    ):
        evaluate.command()(command)
    evaluate.command("is")(inception_score)
    app.add_typer(evaluate)
