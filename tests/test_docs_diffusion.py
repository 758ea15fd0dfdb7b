"""docs/diffusion.md cannot rot: the files, functions, tests, commands and pictures that it names exist."""

import re
from pathlib import Path

import typer.main

from inflate.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "diffusion.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)
# What is no function: attributes of a level, names of weightings, and diffusers' option.
WORDS = {"log_snr", "snr", "angle", "v", "x", "epsilon", "sample_max_value"}


def defined(folder: str) -> dict[str, set[str]]:
    """Name of each function and class below ``folder`` -> the files that define it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in re.findall(r"^(?:def|class) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_file_and_picture_exists() -> None:
    named = [word for word in QUOTED if re.fullmatch(r"(?:inflate|tests|docs|benchmarks)/[\w./-]+", word)]
    pictures = re.findall(r"\]\(([^)]+)\)", PAGE) + re.findall(r'src="([^"]+)"', PAGE)
    assert len(named) > 20 and len(pictures) > 3
    assert not [name for name in named if not (ROOT / name).is_file()]
    assert not [name for name in pictures if not (ROOT / "docs" / name).is_file()]


def test_every_function_and_test_exists_in_a_file_that_is_named() -> None:
    names = {word for word in QUOTED if re.fullmatch(r"[A-Za-z]\w*", word)} - WORDS
    ours, tests = defined("inflate"), defined("tests")
    assert len(names) > 60
    missing = {name for name in names if name not in (tests if name.startswith("test_") else ours)}
    assert not missing
    # The file stands on the page with it; tests of a section may go without theirs.
    assert not {name for name in names & ours.keys() if not ours[name] & set(QUOTED)}


def test_every_command_exists() -> None:
    program = typer.main.get_command(app)
    lines = [word.split()[1:] for word in QUOTED if word.startswith("inflate ")]
    assert len(lines) > 3
    for words in lines:
        command, rest = program, list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = getattr(command, "commands")[rest.pop(0)]  # noqa: B009
        assert command is not program, words
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words
