"""The program's entry: what each outcome of a command prints and which exit code it gives."""

import ast
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import inflate
from inflate.cli import app as program
from inflate.cli.commands import COMMANDS
from inflate.ending import raising_at
from inflate.errors import InputError
from tests.killed import Paused


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Put an exception in the list, and the command ``fail`` raises it."""
    raised: list[BaseException] = []
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(program._program)

    @app.command()
    def fail(steps: int = 1) -> None:
        raise raised[0]

    @app.command()
    def succeed() -> None:
        print("done")

    monkeypatch.delenv("INFLATE_DEBUG", raising=False)
    monkeypatch.setattr(program, "app", app)
    yield raised


def test_a_command_that_ends_gives_0(fails_with: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["succeed"]) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_bad_input_is_one_sentence_and_2(fails_with: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    fails_with.append(InputError("no such folder: models/cat; name a diffusers folder"))
    assert program.main(["fail"]) == 2
    assert capsys.readouterr() == ("", "error: no such folder: models/cat; name a diffusers folder\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fial"], "error: No such command 'fial'"),
        (["fail", "--stpes", "3"], "error: No such option"),
        (["fail", "--steps", "three"], "error: Invalid value for"),
    ],
)
def test_bad_usage_is_one_sentence_and_2(
    fails_with: list[BaseException], capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert program.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith(sentence) and output.err.count("\n") == 1
    assert "--help'" in output.err


def test_no_command_shows_the_help(fails_with: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 2
    output = capsys.readouterr()
    assert "succeed" in output.out and output.err == ""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.mp4"), "error: out.mp4: the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "error: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/out.mp4"), "error: /out.mp4: permission denied"),
    ],
)
def test_what_the_machine_refuses_is_bad_input(
    fails_with: list[BaseException], capsys: pytest.CaptureFixture[str], error: BaseException, sentence: str
) -> None:
    fails_with.append(error)
    assert program.main(["fail"]) == 2
    assert capsys.readouterr().err.startswith(sentence)


def test_anything_else_is_one_line_and_1(fails_with: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    fails_with.append(ZeroDivisionError("division by zero\nand more"))
    assert program.main(["fail"]) == 1
    assert capsys.readouterr().err == (
        "error: ZeroDivisionError: division by zero (run 'inflate --debug …' for the traceback)\n"
    )


@pytest.mark.parametrize("way", ["option", "variable"])
def test_debug_prints_the_traceback(
    fails_with: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    fails_with.append(ZeroDivisionError("division by zero"))
    if way == "variable":
        monkeypatch.setenv("INFLATE_DEBUG", "1")
    assert program.main(["--debug", "fail"] if way == "option" else ["fail"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and "raise raised[0]" in error
    assert error.endswith("error: ZeroDivisionError: division by zero\n")


def test_ctrl_c_says_so_and_gives_1(fails_with: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    fails_with.append(KeyboardInterrupt())
    assert program.main(["fail"]) == 1
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_commands_own_exit_code_is_kept(fails_with: list[BaseException]) -> None:
    fails_with.append(typer.Exit(1))
    assert program.main(["fail"]) == 1


def test_the_list_of_commands_says_what_each_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands: Any = typer.main.get_command(program.app)
    assert list(commands.commands) == list(COMMANDS)
    for name, (_, sentences) in COMMANDS.items():
        assert " ".join(commands.commands[name].help.split("\n\n")[0].split()) == sentences, name
    assert program.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)


def test_no_command_imports_the_module_of_another() -> None:
    """Nor torch for any help: the first word is answered at once."""
    script = (
        "import sys\nfrom inflate.cli.app import main\nmain(sys.argv[1:])\n"
        "print([name for name in sys.modules if name.startswith('inflate.cli.') or name == 'torch'], file=sys.stderr)"
    )
    for words, module in (((), ""), (("generate",), "inflate.cli.generate"), (("inspect",), "inflate.cli.convert")):
        done = subprocess.run(
            [sys.executable, "-c", script, *words, "--help"], capture_output=True, text=True, check=True
        )
        others = {f"inflate.cli.{name}" for name, _ in COMMANDS.values()} - {module}
        found = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
        assert not found & {*others, "torch"} and (not module or module in found)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out == f"inflate {inflate.__version__}\n"


# Whoever started the tests may have had them ignore SIGHUP, as nohup does.
_WRITING = """
import signal
import sys
from pathlib import Path
from inflate.cli.app import app, main
from inflate.staging import new_file, staged

signal.signal(signal.SIGHUP, signal.SIG_DFL)

@app.command("write")
def write(folder: Path) -> None:
    with new_file(folder / "out.mp4") as partial, staged(folder / "model") as begun:
        for path in (partial, begun / "half"):
            path.write_text("half")
        pause()

sys.exit(main(["write", sys.argv[1]]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_asked_to_end_leaves_nothing_half_made(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    with Paused(_WRITING, tmp_path) as writing:
        assert list(tmp_path.iterdir())
        writing.process.send_signal(number)
        assert writing.process.wait(60) == 128 + number
        assert not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under ``nohup``; and a handler that others have set is theirs again afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    others = signal.getsignal(signal.SIGTERM)
    try:
        with raising_at():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and signal.getsignal(signal.SIGTERM) != others
        assert signal.getsignal(signal.SIGTERM) is others
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_name_that_is_not_text_can_be_printed(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom inflate.cli.app import app, main\n"
        "@app.command('say')\ndef say(name: str) -> None:\n    print(name)\nsys.exit(main(['say', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", script, os.fsdecode(b"caf\xe9")], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"caf\\udce9\n")
