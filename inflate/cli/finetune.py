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
        device: Annotated[str | None, typer.Option(help="'cpu' to stay off the GPU; default: what there is.")] = None,
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

    @app.command()
    def assemble(
        family: Annotated[Path, typer.Argument(help="A family file (TOML) naming one folder per role.")],
        destination: Annotated[Path, typer.Argument(help="The cascade's folder to write.")],
        force: Annotated[bool, typer.Option("--force", help="Replace DESTINATION if it exists.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing.")] = False,
    ) -> None:
        """Put trained parts together as one cascade folder that `generate` loads."""
        from inflate.train.assemble import assemble as assemble_family
        from inflate.train.assemble import load_family

        sizes = assemble_family(load_family(family), destination, force)
        if not quiet:
            for role, size in sizes.items():
                typer.echo(f"{role:>16}  {size / 1e6:6.1f} MB")
            typer.echo(f"{destination}: {sum(sizes.values()) / 1e6:.1f} MB of weights.")
