"""The program's commands, each in a module that is imported when it is run, and not when others are."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# Module, and the first sentences of the command's own help (tests hold them together), in the order of the list.
COMMANDS = {
    "convert": (
        "convert",
        "Turn an image model into a video model that gives, until it is trained, the same pictures bit for bit.",
    ),
    "inspect": ("convert", "Say what is in a model's folder, or what inflating it would add; reads no weights."),
    "verify": (
        "convert",
        "Run the image model and the inflated model on the same random input; exit code 1 if any frame differs.",
    ),
    "deflate": ("convert", "Take the temporal weights out again: every other file as it was, byte for byte."),
    "import": ("formats", "Put a motion module onto an image model: DST is an inflated folder of the two."),
    "export": (
        "formats",
        "Write an inflated model's motion modules for diffusers, ComfyUI and AnimateDiff, or Hotshot-XL.",
    ),
    "schemes": (
        "schemes",
        "List the schemes; with a model, the new parameters and arithmetic of each. Reads no weights.",
    ),
    "finetune": ("finetune", "Train a video model on top of an image model (--model, --data), or what RECIPE says."),
    "distill": ("finetune", "Train students of a network that need fewer sampling steps, one after the other."),
    "assemble": ("finetune", "Put what a role file names together as one cascade folder that `generate` loads."),
    "recipe": ("finetune", "Print the recipe that `finetune --model MODEL` would use, to keep and to change."),
    "plan": ("plan", "Tell how much memory and time `finetune` with the same options would take, without weights."),
    "generate": ("generate", "Make a video of any length from each prompt, and a contact sheet with a row per prompt."),
    "demo": (
        "demo",
        "Inflate the bundled image model before your eyes, then send a prompt through every stage: a video and a "
        "sheet.",
    ),
    "animate": ("applications", "Make a picture move."),
    "interpolate": (
        "applications",
        "Fill in what lies between two pictures, or between the frames of a video (--frame-skip times as many).",
    ),
    "extend": ("applications", "Go on where a video ends, by --frames frames or until it lasts --seconds."),
    "infill": ("applications", "Make frames of a video anew from those around them, with D^t alone."),
    "vary": ("applications", "Make another video of what a video shows."),
    "upscale": (
        "applications",
        "Enlarge a video of any length by the super-resolution stages; says first how long that takes.",
    ),
    "app": (
        "page",
        "Serve a page for prompts, pictures and videos (needs the app extra); docs/serving.md tells of its limits.",
    ),
    "prepare": ("prepare", "Prepare a data set for training."),
    "evaluate": ("evaluate", "Measure a family of models on a prepared data set, or folders of videos."),
}


class Commands(TyperGroup):
    """All commands of the table, and those that were added to the app itself."""

    def __init__(self, **options: Any) -> None:
        self._loaded: MutableMapping[str, Any] = {}
        self._listing = False
        super().__init__(**options)

    @property
    def commands(self) -> MutableMapping[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]  # looked up when asked for
        """All commands by name, which imports them."""
        return {name: self._command(name) for name in self._names()}

    @commands.setter
    def commands(self, own: MutableMapping[str, Any]) -> None:
        self._loaded = dict(own)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the list."""
        return self._names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; for the list of all, one that has nothing but its first sentences."""
        if self._listing and cmd_name in COMMANDS:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])
        return self._command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of the program itself."""
        with self._in_list():
            super().format_help(ctx, formatter)

    @contextmanager
    def _in_list(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def _names(self) -> list[str]:
        return [*COMMANDS, *(name for name in self._loaded if name not in COMMANDS)]

    def _command(self, name: str) -> Any:
        if name not in self._loaded and name in COMMANDS:
            part = typer.Typer(callback=_nothing)
            # None of them may import torch, diffusers or Gradio at import time.
            import_module(f"inflate.cli.{COMMANDS[name][0]}").register(part)
            for found, command in typer.main.get_group(part).commands.items():
                self._loaded.setdefault(found, command)
        return self._loaded.get(name)


def _nothing() -> None:
    """What makes a group of one command a group."""
