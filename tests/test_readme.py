"""The README's promises: its example runs as printed, and the commands and files it names exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from PIL import Image

from inflate.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def first_python_block() -> str:
    match = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert match, "the README has no Python example"
    return match[1]


def test_a_newcomer_finds_everything_in_60_lines() -> None:
    opening = "\n".join(README.splitlines()[:60])
    for promise in ("make demo", "make test", "](docs/demo.png)", first_python_block().strip()):
        assert promise in opening


def test_the_example_runs_and_makes_a_video(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", first_python_block() + "\nassert out.shape == video.shape"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "party-popper.gif") as picture:
        assert picture.n_frames > 1, "nothing moves"  # pyright: ignore[reportAttributeAccessIssue]


def commands_in_readme() -> list[list[str]]:
    """Words of every ``inflate …`` in code style whose second word is a command, not the library's name."""
    quoted = re.findall(r"`inflate ([a-z]\w*[^`]*)`", README)
    return [line.split() for line in quoted]


@pytest.mark.parametrize("words", commands_in_readme(), ids=" ".join)
def test_every_command_in_the_readme_exists(words: list[str]) -> None:
    program = typer.main.get_command(app)
    command = program.commands.get(words[0])  # pyright: ignore[reportAttributeAccessIssue]
    assert command, f"there is no command 'inflate {words[0]}'"
    if len(words) > 1 and not words[1].startswith("-"):
        command = getattr(command, "commands", {}).get(words[1], command)  # a group's own command
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_every_file_in_the_readme_exists() -> None:
    named = re.findall(r"`((?:inflate|interp|superres|recipes|tests|docs|benchmarks)/[\w./-]*)`", README)
    named += re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_table_of_image_models_is_what_the_benchmark_prints() -> None:
    command = [sys.executable, "benchmarks/image_models.py", "--table", "benchmarks/image_models.json"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    assert printed.count("\n") > 10 and printed in README
