"""The ``inflate`` program: one Typer app, one module per group of commands, one place that turns errors into exit codes."""

import sys
from importlib import import_module

import typer

from inflate.errors import InputError

# Each module has register(app); none may import torch, diffusers or Gradio at import time.
COMMAND_MODULES = ("convert", "prepare", "finetune", "evaluate", "generate")

app = typer.Typer(
    name="inflate",
    help="Turn an image diffusion model into a video model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for _name in COMMAND_MODULES:
    import_module(f"inflate.cli.{_name}").register(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns 0 (done), 2 (bad usage or input, one sentence on stderr) or 1 (anything else)."""
    try:
        result = app(args=arguments, standalone_mode=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort:
        return 1
    except Exception as error:
        import click

        if isinstance(error, click.ClickException):
            error.show()
            return int(error.exit_code)
        raise
    return int(result or 0)
