"""Commands in the documents exist, with every flag that is given them."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from inflate.cli.app import app

DOCS = Path(__file__).resolve().parent.parent / "docs"
CHECKED = ("evaluation.md",)


def commands_in(text: str) -> list[list[str]]:
    """Words after ``inflate`` of every command, in code style and in shell blocks, line ends joined."""
    blocks = "\n".join(re.findall(r"```(?:sh|bash|yaml)\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:^|\s)(?:-m )?inflate ([a-z][^\n|&;]*)", blocks)
    return [shlex.split(line, comments=True) for line in [*lines, *re.findall(r"`inflate ([a-z]\w*[^`]*)`", text)]]


def unknown(words: list[str]) -> list[str]:
    """What of a command's words no command has."""
    command: Any = typer.main.get_command(app)
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("document", CHECKED)
def test_commands_in_documents_exist(document: str) -> None:
    found = commands_in((DOCS / document).read_text(encoding="utf-8"))
    assert len(found) > 3
    assert not [(words, bad) for words in found if (bad := unknown(words))]


def test_the_check_itself() -> None:
    text = "`inflate finetune --modle x` and\n```sh\ninflate evaluate fvd made \\\n  --rael x\ninflate nothing\n```"
    assert [unknown(words) for words in commands_in(text)] == [["--rael"], ["nothing"], ["--modle"]]
