"""The ``inflate`` program: one Typer app, one place from errors to exit codes."""

import errno
import io
import os
import sys
import traceback
from contextvars import ContextVar
from typing import Annotated

import typer

from inflate.cli.commands import Commands
from inflate.ending import EndedError, raising_at
from inflate.errors import InputError, StoppedError

DONE, FAILED, BAD_INPUT = 0, 1, 2

# Typer carries its own click in newer releases and imports click in older ones; both derive BadParameter from this.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

# What the machine, not the program, refused, and what a user can do about it.
_REFUSED = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; name a place that can be written",
    errno.EACCES: "permission denied; name a place that you may read and write",
    errno.EPERM: "permission denied; name a place that you may read and write",
}

_show_traceback: ContextVar[bool] = ContextVar("_show_traceback", default=False)

app = typer.Typer(
    name="inflate",
    cls=Commands,
    help="Turn an image diffusion model into a video model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from inflate.version import __version__

        print(f"inflate {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="INFLATE_DEBUG", help="Print the traceback of an error as well.")
    ] = False,
) -> None:
    _show_traceback.set(debug)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _fail(error: BaseException, sentence: str, code: int) -> int:
    if _show_traceback.get():
        traceback.print_exception(error)
    print(f"error: {_one_line(sentence)}", file=sys.stderr)
    return code


def _bad_usage(error: Exception) -> int:
    """A command line that Typer refused; its own message, and where help is."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed by then
        return BAD_INPUT
    context = getattr(error, "ctx", None)
    where = f" (see '{context.command_path} --help')" if context is not None else ""
    message = error.format_message() if hasattr(error, "format_message") else str(error)  # pyright: ignore[reportAttributeAccessIssue]
    return _fail(error, message.rstrip(".") + where, BAD_INPUT)


def _unexpected(error: Exception) -> int:
    """Anything a command let through: bad input if the machine refused a file, a failure of ours otherwise."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and "(os error 28)" in str(error):  # how safetensors, written in Rust, reports a full disk
        number = errno.ENOSPC
    if number in _REFUSED:
        path = getattr(error, "filename", None)
        return _fail(error, f"{path}: {_REFUSED[number]}" if path else _REFUSED[number], BAD_INPUT)
    first_line = next(iter(str(error).splitlines()), "")
    hint = "" if _show_traceback.get() else " (run 'inflate --debug …' for the traceback)"
    return _fail(error, f"{type(error).__name__}: {first_line}{hint}", FAILED)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns 0 (done), 2 (bad usage or input, one sentence on stderr), 130 or 143 (a run that was
    asked to stop has saved its state), 128 and the signal's number (ended by SIGTERM or SIGHUP, with nothing left half
    made) or 1 (anything else)."""
    _show_traceback.set(os.environ.get("INFLATE_DEBUG", "") not in ("", "0"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text in the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with raising_at():
            result = app(args=arguments, prog_name="inflate", standalone_mode=False)
    except EndedError as ended:
        return _fail(ended, f"ended by {ended}", 128 + ended.signal_number)
    except InputError as error:
        return _fail(error, str(error), BAD_INPUT)
    except StoppedError as stop:
        print(_one_line(stop), file=sys.stderr)
        return stop.exit_code
    except _ClickException as error:
        return _bad_usage(error)
    except (KeyboardInterrupt, typer.Abort) as stop:
        return _fail(stop, "interrupted", FAILED)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except Exception as error:  # the program's last word: a bug is reported as one
        return _unexpected(error)
    if result == 130:  # Typer's own code for Ctrl-C
        print("error: interrupted", file=sys.stderr)
        return FAILED
    return result if isinstance(result, int) else DONE
