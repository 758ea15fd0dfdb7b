"""``inflate finetune``: run a training recipe."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add ``finetune``."""

    @app.command()
    def finetune(
        recipe: Annotated[Path, typer.Argument(help="A recipe (TOML); see recipes/.")],
        overrides: Annotated[
            list[str] | None, typer.Option("--set", help="section.key=value, for instance train.steps=100; repeatable.")
        ] = None,
        data: Annotated[str | None, typer.Option(help="Prepared data set or any folder of videos (data.path).")] = None,
        output: Annotated[str | None, typer.Option("--output", "-o", help="Run folder; default runs/<name>.")] = None,
        device: Annotated[str | None, typer.Option(help="'cpu' to stay off the GPU; default: the best there is.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    ) -> None:
        """Train what RECIPE says. Interrupted or killed, the same command goes on where it stopped."""
        import json

        from inflate.train.recipe import load_recipe

        changes = list(overrides or [])
        changes += [f"data.path={json.dumps(data)}"] if data else []
        changes += [f"output={json.dumps(output)}"] if output else []
        resolved = load_recipe(recipe, changes)
        if dry_run:
            typer.echo(json.dumps(resolved.resolved(), indent=2))
            return
        from inflate.train.loop import train

        export = train(resolved, device=device, quiet=quiet)
        if not quiet:
            typer.echo(f"{resolved.name}: done; the trained network is in {export}.")
