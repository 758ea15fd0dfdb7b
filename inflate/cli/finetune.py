"""``inflate finetune`` and ``inflate distill``: run a training recipe, or a chain of them; ``inflate assemble``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inflate.cli.options import Variant
from inflate.cli.reporting import notes
from inflate.errors import InputError

if TYPE_CHECKING:
    from inflate.train.recipe import Recipe

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value, for instance train.steps=100; repeatable.")
]
Data = Annotated[str | None, typer.Option(help="Prepared data set or any folder of videos (data.path).")]
Cache = Annotated[
    str | None, typer.Option(help="Folder for what is kept of the data, which is then only read (data.cache).")
]
Model = Annotated[
    str | None, typer.Option(help="An image model: a pipeline's folder, a network's, a file, a hub name.")
]
SchemeName = Annotated[str | None, typer.Option("--scheme", help="Of temporal layers; 'inflate schemes MODEL' lists.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="Run folder; default runs/<name>.")]
Device = Annotated[str | None, typer.Option(help="'cpu' to stay off the GPU; default: what there is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def register(app: typer.Typer) -> None:
    """Add ``finetune``, ``recipe``, ``distill`` and ``assemble``."""
    for command in (finetune, distill, assemble):
        app.command()(command)
    app.command("recipe")(print_recipe)


def finetune(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML); see recipes/. Or name --model.")] = None,
    model: Model = None,
    data: Data = None,
    cache: Cache = None,
    output: Output = None,
    scheme: SchemeName = None,
    variant: Variant = None,
    overrides: Overrides = None,
    device: Device = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train a video model on top of an image model (--model, --data), or what RECIPE says.

    Interrupted or killed, the same command goes on where it stopped.
    """
    resolved = _resolve(recipe, _with(overrides, variant, cache), data, output, dry_run, model, scheme)
    if resolved is None:
        return
    from inflate.train.loop import train

    with notes(quiet):
        export = train(resolved, device=device, quiet=quiet)
    if not quiet:
        typer.echo(f"{resolved.name}: done; the trained network is in {export}.")


def print_recipe(
    model: Annotated[str, typer.Argument(help="What `finetune --model` takes.")],
    data: Data = None,
    output: Output = None,
    scheme: SchemeName = None,
    variant: Variant = None,
    overrides: Overrides = None,
) -> None:
    """Print the recipe that `finetune --model MODEL` would use, to keep and to change."""
    from inflate.train.checking import check_values
    from inflate.train.from_model import recipe_table, recipe_text
    from inflate.train.recipe import parse_recipe

    table = recipe_table(model, data or "CLIPS", output or "", scheme or "", _with(overrides, variant))
    check_values(parse_recipe(table, f"the recipe of {model}"))
    typer.echo(recipe_text(table), nl=False)


def distill(
    recipe: Annotated[Path, typer.Argument(help='A recipe (TOML) with step = "distill"; see recipes/.')],
    overrides: Overrides = None,
    data: Data = None,
    cache: Cache = None,
    output: Output = None,
    device: Device = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train students of a network that need fewer sampling steps, one after the other.

    Guidance goes into the weights first, then each phase halves the steps; or consistency distillation, with the
    same command. Interrupted or killed, the same command goes on where it stopped.
    """
    resolved = _resolve(recipe, _with(overrides, cache=cache), data, output, dry_run)
    if resolved is None:
        return
    from inflate.train.distill import distill as run

    with notes(quiet):
        exports = run(resolved, device=device, quiet=quiet)
    if not quiet:
        typer.echo(f"{resolved.name}: done; the students are in {', '.join(map(str, exports))}.")


def assemble(
    roles: Annotated[Path, typer.Argument(help="A role file (TOML), which says what plays each stage.")],
    destination: Annotated[Path, typer.Argument(help="The cascade's folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace DESTINATION if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing.")] = False,
) -> None:
    """Put what a role file names together as one cascade folder that `generate` loads."""
    from inflate.cascade.assembling import assemble as write_cascade

    with notes(quiet):
        sizes = write_cascade(roles, destination, force)
    if not quiet:
        for role, size in sizes.items():
            typer.echo(f"{role:>16}  {size / 1e6:6.1f} MB")
        typer.echo(f"{destination}: {sum(sizes.values()) / 1e6:.1f} MB of weights.")


def _with(overrides: list[str] | None, variant: str | None = None, cache: str | None = None) -> list[str]:
    said = {"options.variant": variant, "data.cache": cache}
    return [*(overrides or []), *(f"{key}={json.dumps(value)}" for key, value in said.items() if value is not None)]


def _resolve(
    recipe: Path | None,
    overrides: list[str] | None,
    data: str | None,
    output: str | None,
    dry_run: bool,
    model: str | None = None,
    scheme: str | None = None,
) -> "Recipe | None":
    """The recipe as the options change it; with ``dry_run`` it is printed, and None comes back."""
    from inflate.train.recipe import load_recipe

    changes = list(overrides or [])
    if recipe is None:
        resolved = _of_model(model, data, output, scheme, changes)
    else:
        for name, value in (("options.model", model), ("options.scheme", scheme), ("data.path", data)):
            changes += [f"{name}={json.dumps(value)}"] if value else []
        changes += [f"output={json.dumps(output)}"] if output else []
        resolved = load_recipe(recipe, changes)
    if dry_run:
        _check(resolved)
        typer.echo(json.dumps(resolved.resolved(), indent=2))
        return None
    return resolved


def _check(recipe: "Recipe") -> None:
    """Raise ``InputError`` for values that no run could have; what they name need not be there yet."""
    from inflate.train.checking import check_values
    from inflate.train.distill import phases_of

    for one in phases_of(recipe) if recipe.step == "distill" else [recipe]:
        check_values(one)


def _of_model(
    model: str | None, data: str | None, output: str | None, scheme: str | None, changes: list[str]
) -> "Recipe":
    if not model:
        raise InputError("Name a recipe, or an image model and clips: inflate finetune --model MODEL --data CLIPS.")
    if not data and not any(change.startswith("data.path=") for change in changes):
        raise InputError("Name the clips to train on: --data CLIPS, a folder of videos.")
    from inflate.train.from_model import recipe_of_model

    return recipe_of_model(model, data or "", output or "", scheme or "", changes)
