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


def own_calls(frame: FrameType | None, since: str) -> list[str]:
    """Our own functions that are at work, the last called first, up to the one named ``since``."""
    found: list[str] = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(ROOMS):
            if code.co_qualname == since:
                return found
            found.append(f"{Path(code.co_filename).name}: {code.co_qualname}")
        frame = frame.f_back
    raise AssertionError(f"{since} is not among the callers")


# A long video's chunks are asked for by what writes them, so that its way is told from the chain on.
@pytest.mark.parametrize(("frames", "since", "at_most"), [(16, "generate", 8), (24, "Runner.stream_through", 6)])
def test_a_prompt_takes_few_calls_of_ours_to_the_image_model(
    frames: int, since: str, at_most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    forward = diffusers.UNet2DConditionModel.forward

    @wraps(forward)  # its signature is read
    def watched(self: diffusers.UNet2DConditionModel, *args: object, **options: object) -> object:
        if not seen:
            seen.append(own_calls(inspect.currentframe(), since))
        return forward(self, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", watched)
    command = ["generate", "party popper", "-o", str(tmp_path / "out.gif"), "--until", "decoder", "--steps", "2"]
    made = CliRunner().invoke(app, [*command, "--frames", str(frames)])
    assert made.exit_code == 0, made.output
    [calls] = seen
    assert len(calls) <= at_most, "\n".join(reversed(calls))
