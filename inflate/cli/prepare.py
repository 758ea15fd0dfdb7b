"""``inflate prepare``: real data sets, ready to train on."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inflate.errors import InputError

if TYPE_CHECKING:
    Progress = Callable[[str, int, int], None]

_DATA_SET = "emoji_family.fluent_emoji"  # beside inflate, which never imports it by statement
prepare = typer.Typer(help="Prepare a data set for training.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(prepare, name="prepare")


@prepare.callback()
def _group() -> None:
    """Prepare a data set for training."""


@prepare.command("fluent-emoji")
def fluent_emoji(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the data set goes.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder with the npm packages, packed or unpacked; nothing is fetched."),
    ] = None,
    npm_cache: Annotated[
        Path | None, typer.Option(help="Where npm packs the packages to; packages already there are used.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only these code-point names, such as 1f389,1f44b.")] = None,
    skin_tones: Annotated[bool, typer.Option("--skin-tones", help="Add all variants with a skin tone.")] = False,
    videofolder: Annotated[bool, typer.Option(help="Also write mp4 files with metadata.jsonl.")] = True,
    still_size: Annotated[int | None, typer.Option(help="Make stills this small, in pixels, on white.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that write videos.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it is a prepared data set.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Microsoft's Fluent animated emoji (MIT) with captions: webdataset shards, a videofolder and stills.

    About 740 MB are fetched through npm once, unless --from says where the packages lie.
    """
    data_set = import_module(_DATA_SET)
    names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
    if only is not None and not names:
        raise InputError("--only names no emoji; give code points such as 1f389,1f44b")
    if still_size is not None and not 8 <= still_size <= 1024:
        raise InputError(f"--still-size is {still_size}; it must be from 8 to 1024 pixels")
    options = data_set.PrepareOptions(skin_tones, names, still_size, videofolder, workers)
    with _progress(quiet or as_json) as progress:
        summary = data_set.prepare_fluent_emoji(folder, source, npm_cache, options, force, progress)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    elif not quiet:
        counts, lacking = summary["counts"], summary["without_caption"]
        typer.echo(
            f"{folder}: {counts['clips_train']} training clips and {counts['clips_test']} test clips, ", nl=False
        )
        typer.echo(f"{counts['stills_train']} training stills and {counts['stills_test']} test stills")
        typer.echo(f"without a caption: {', '.join(lacking) if lacking else 'none'}")


@contextmanager
def _progress(quiet: bool) -> "Iterator[Progress | None]":
    """A rich progress bar on stderr with one line per kind of work, or None."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(task: str, done: int, total: int) -> None:
            number = tasks.get(task)
            if number is None:
                number = tasks[task] = bar.add_task(task, total=total)
            bar.update(number, completed=done)

        yield show
