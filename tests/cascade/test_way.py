"""The way of a prompt: how many of our own calls lie between the command and the image model."""

import inspect
from functools import wraps
from pathlib import Path
from types import FrameType

import diffusers
import pytest
from typer.testing import CliRunner

import inflate
from inflate.cli.app import app

HOUSE = Path(inflate.__file__).resolve().parent.parent
ROOMS = tuple(str(HOUSE / room) for room in ("inflate", "interp", "superres", "emoji_family"))
AT_MOST = 8


def own_calls(frame: FrameType | None) -> list[str]:
    """Our own functions that are at work, the last called first, up to the command."""
    found: list[str] = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(ROOMS):
            if code.co_name == "generate":
                return found
            found.append(f"{Path(code.co_filename).name}: {code.co_qualname}")
        frame = frame.f_back
    raise AssertionError("the command is not among the callers")


@pytest.mark.parametrize("more", [(), ("--frames", "24")], ids=["short", "windows"])
def test_a_prompt_takes_few_calls_of_ours_to_the_image_model(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    forward = diffusers.UNet2DConditionModel.forward

    @wraps(forward)  # its signature is read
    def watched(self: diffusers.UNet2DConditionModel, *args: object, **options: object) -> object:
        if not seen:
            seen.append(own_calls(inspect.currentframe()))
        return forward(self, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", watched)
    command = ["generate", "party popper", "-o", str(tmp_path / "out.gif"), "--until", "decoder", "--steps", "2"]
    made = CliRunner().invoke(app, [*command, *more])
    assert made.exit_code == 0, made.output
    [calls] = seen
    # Chunks of a long video are asked for by what writes them, which the chain takes six calls more for.
    assert len(calls) <= AT_MOST + (6 if more else 0), "\n".join(reversed(calls))
