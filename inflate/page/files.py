"""What a visitor takes away: the video as mp4, gif and webp, and the settings that make it again."""

import json
import shlex
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inflate.data.writing import enlarge, write_text, write_video


@dataclass(frozen=True)
class Request:
    """What was asked for: the command of the program that does the same, and every setting."""

    command: str  # generate, animate, …
    inputs: tuple[str, ...]  # the prompt, or names of the uploaded files
    model: str
    seed: int
    options: dict[str, Any]  # option of the command -> value; None leaves it out

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


def write_all(frames: np.ndarray, fps: float, request: Request, folder: Path | None = None) -> Written:
    """Write uint8 frames (F, H, W, 3) in all formats into a new folder below ``folder`` (default: a temporary one)."""
    base = Path(tempfile.mkdtemp(prefix="inflate-", dir=folder))
    paths = {suffix: base / f"inflate.{suffix}" for suffix in ("mp4", "gif", "webp")}
    for path in paths.values():
        write_video(path, frames, fps)
    settings = asdict(request) | {"shown_fps": fps, "frames_made": len(frames), "command_line": request.command_line()}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    path = write_text(base / "inflate.json", text)
    return Written(str(paths["mp4"]), str(paths["gif"]), str(paths["webp"]), str(path))


def write_preview(frames: np.ndarray, fps: float, folder: Path | None = None, side: int = 192) -> str:
    """A small looping webp of a stage's frames for the page, enlarged to about ``side`` pixels where they are small."""
    base = Path(tempfile.mkdtemp(prefix="inflate-", dir=folder))
    shown = enlarge(frames, max(1, round(side / frames.shape[1])), "lanczos")
    return str(write_video(base / "preview.webp", shown, fps))


def before_and_after(low: np.ndarray, high: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """The middle frames of a video before and after super-resolution, at the same size, for a slider."""
    after = Image.fromarray(high[len(high) // 2])
    before = Image.fromarray(low[len(low) // 2]).resize(after.size, Image.Resampling.BICUBIC)
    return before, after
