"""What commands say while they work, and after."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from inflate.errors import Note


@contextmanager
def notes(quiet: bool) -> Iterator[None]:
    """Say on stderr, each once and as a plain sentence, what the chain warns of inside the block."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        yield
    for sentence in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, Note)):
        if not quiet:
            typer.echo(sentence, err=True)
    for one in caught:
        if not issubclass(one.category, Note):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar on stderr over the whole chain, with the stage's name; it vanishes when done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def on_step(cascade: Any, step: int, timestep: Any, values: dict[str, Any]) -> None:
            now = values["progress"]
            what = f"{now.stage}, video {now.video + 1} of {now.num_videos}, step {step + 1} of {now.num_steps}"
            bar.update(task, completed=now.fraction, description=what)

        yield on_step


def report_files(
    videos: list[Path], sheet: Path | None, settings: dict[str, Any], seconds: float, quiet: bool, as_json: bool
) -> None:
    """Say what was written: paths on standard output, or all of it as JSON."""
    if as_json:
        files = {"videos": [str(path) for path in videos], "sheet": None if sheet is None else str(sheet)}
        typer.echo(json.dumps(files | {"seconds": seconds, "settings": settings}, indent=2, ensure_ascii=False))
    elif not quiet:
        for path in [*videos, *([] if sheet is None else [sheet])]:
            typer.echo(str(path))
        typer.echo(f"done in {seconds} s", err=True)
