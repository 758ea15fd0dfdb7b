"""What the measures have in common: options, a progress bar, and reports that are written whole or not at all."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

Model = Annotated[str, typer.Argument(help="A family's folder, or bundled:emoji.")]
Data = Annotated[Path, typer.Argument(help="A folder that inflate prepare made, or a frame cache of one.")]
ModelOrBundled = Annotated[str, typer.Argument(metavar="[FAMILY]", help="A family's folder, or bundled:emoji.")]
DataOption = Annotated[
    Path, typer.Option("--data", help="A folder that inflate prepare made, or a frame cache of one.")
]
Seed = Annotated[int, typer.Option(help="Chooses prompts and noise.", min=0, max=2**63 - 1)]
Frames = Annotated[int, typer.Option(help="Frames in a clip.", min=2)]
Steps = Annotated[int | None, typer.Option(help="Sampling steps of the decoder; default: the family's own.", min=1)]
Guidance = Annotated[float | None, typer.Option(help="Guidance of the decoder; default: the family's own.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")]
Sheet = Annotated[Path | None, typer.Option(help="Write frames to look at to this PNG, a row for each method.")]
Device = Annotated[str | None, typer.Option(help="Default: a GPU if there is one, else cpu.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Split = Annotated[str, typer.Option(help="train or test: where prompts and clips are from.")]

SPLITS = ("train", "test")


def parse_numbers(option: str, text: str) -> list[float]:
    """Different numbers with commas between, none below 0; ``option`` is named where they are something else."""
    from inflate import InputError

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < math.inf for number in numbers):
        raise InputError(f"{option} is {text!r}; give different numbers with commas between, such as 4,8,16,30")
    return numbers


@contextmanager
def progress_bar(what: str, total: int, quiet: bool) -> "Iterator[Callable[[], None]]":
    """A bar of ``total`` steps on standard error; what it gives is called after each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    from inflate.staging import new_file

    with new_file(path, overwrite=True) as partial:
        partial.write_bytes(content)


def check_asked(
    report: Path | None, sheet: Path | None = None, data: Path | None = None, split: str = "test", *fps: float
) -> None:
    """Refuse, before the work starts, files that cannot be written, data that is not there, and rates that cannot be.

    Raises:
        InputError: one of these.
    """
    from inflate import InputError
    from inflate.data.writing import check_output
    from inflate.errors import nearest
    from inflate.places import check_place

    if sheet is not None:
        check_output(sheet, (".png",), overwrite=True)
    if report is not None:
        check_place(report)
        if report.is_dir():
            raise InputError(f"{report} is a folder; name a file for the report.")
    if split not in SPLITS:
        raise InputError(f"--split is {split!r}{nearest(split, SPLITS)}; use {' or '.join(SPLITS)}")
    if data is not None and not data.is_dir():
        raise InputError(f"there is no folder {data}; make one with: inflate prepare fluent-emoji {data}")
    for rate in fps:
        if not (math.isfinite(rate) and 0 < rate <= 1000):
            raise InputError(f"--fps is {rate}; give a number above 0 and at most 1000")


def write_sheet(path: Path, rows: "dict[str, np.ndarray]", columns: int) -> None:
    """Frames uint8 (F, H, W, 3) by label as a picture with a row for each."""
    from inflate.data.writing import write_contact_sheet

    write_contact_sheet(path, list(rows.values()), list(rows), columns, overwrite=True)


def write_json(path: Path | None, report: dict[str, object]) -> None:
    """Write a report where one was asked for."""
    if path is not None:
        write_file(path, (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode())
