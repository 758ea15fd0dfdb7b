"""What a visitor takes away: the video as mp4, gif and webp, and the settings that make it again."""

import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inflate.data.animations import Frames
from inflate.data.writing import enlarge, write_text, write_video


@dataclass(frozen=True)
class Request:
    """What was asked for: the command of the program that does the same, and every setting."""

    command: str  # generate, animate, …
    inputs: tuple[str, ...]  # the prompt, or names of the uploaded files
    model: str
    seed: int
    options: dict[str, Any]  # option of the command -> value; None leaves it out
    note: str = ""  # where the command would not make the very same video

    def command_line(self, output: str = "out.mp4") -> str:
        """The line for a terminal that makes the same video."""
        words = ["inflate", self.command, *self.inputs, "-o", output, "--model", self.model, "--seed", str(self.seed)]
        for name, value in self.options.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Written:
    """Paths of one video's files."""

    mp4: str
    gif: str
    webp: str
    settings: str

    def all(self) -> list[str]:
        """All of them."""
        return list(asdict(self).values())


def write_all(
    frames: Frames, fps: float, request: Request, folder: Path, tell: Callable[[float], None] | None = None
) -> Written:
    """Write frames in all formats into a new folder below ``folder``.

    ``tell`` hears which share of the work is done; the mp4 is quicker than the others.
    """
    base = Path(tempfile.mkdtemp(prefix="made-", dir=folder))
    paths = {suffix: base / f"inflate.{suffix}" for suffix in ("mp4", "gif", "webp")}
    for path, share in zip(paths.values(), (0.2, 0.5, 1.0), strict=True):
        write_video(path, frames, fps)
        if tell is not None:
            tell(share)
    settings = asdict(request) | {"shown_fps": fps, "frames_made": len(frames), "command_line": request.command_line()}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    path = write_text(base / "inflate.json", text)
    return Written(str(paths["mp4"]), str(paths["gif"]), str(paths["webp"]), str(path))


def write_preview(frames: np.ndarray, fps: float, folder: Path, side: int = 192) -> str:
    """A looping webp of a stage's frames for the page, enlarged to about ``side`` pixels where they are small."""
    base = Path(tempfile.mkdtemp(prefix="so-far-", dir=folder))
    shown = enlarge(frames, max(1, round(side / frames.shape[1])), "lanczos")
    return str(write_video(base / "preview.webp", shown, fps))


def write_comparison(low: np.ndarray, high: Frames, folder: Path) -> tuple[str, str]:
    """The middle frames of a video before and after super-resolution, as files of pictures of the same size."""
    after = Image.fromarray(high[len(high) // 2])
    before = Image.fromarray(low[len(low) // 2]).resize(after.size, Image.Resampling.BICUBIC)
    base = Path(tempfile.mkdtemp(prefix="compared-", dir=folder))
    paths = (base / "before.png", base / "after.png")
    for picture, path in zip((before, after), paths, strict=True):
        picture.save(path)
    return str(paths[0]), str(paths[1])
