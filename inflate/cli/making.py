"""What ``inflate generate`` makes of its prompts: videos in memory, or long ones a chunk at a time."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from inflate.cascade import Cascade
from inflate.cascade.inputs import MAX_FRAMES, Timing, begun, first_state, picture_size
from inflate.cascade.long import MAX_STREAMED_FRAMES
from inflate.cascade.shapes import cropped_share
from inflate.cascade.timing import seconds_of_stream
from inflate.cli.how_long import say_how_long
from inflate.cli.reporting import progress_bar
from inflate.data.writing import SHEET_COLUMNS, shown_otherwise, spread, write_video
from inflate.errors import InputError
from inflate.models.beginning import drawn_pixels
from inflate.stages import ChainState
from inflate.video import to_uint8

View = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Job:
    """Videos to make, one without prompts; each has the whole seed to itself, so that it comes out the same alone."""

    cascade: Cascade
    prompts: list[str]
    frames: int
    fps: float
    seed: int
    quiet: bool
    options: dict[str, Any]

    def check(self) -> None:
        """Raise ``InputError`` for what cannot be made, before any weights are read."""
        if not any(stage.name == "decoder" for stage in self.cascade.up_to(self.options["until"])):
            raise InputError("This model stops before it makes frames; it needs a decoder.")
        self._state(self.prompts)

    def write(self, paths: list[Path], view: View, force: bool) -> tuple[list[np.ndarray], float]:
        """Write a file for each prompt; returns frames for a sheet, uint8 (F, H, W, 3), and the rate they play at."""
        self._say(self._cropped())
        if self._is_long():
            shown, fps = self._stream(paths, view, force)
        else:
            generators = [self._generator() for _ in self.prompts or [""]]
            prompts = self.prompts or None
            with progress_bar(self.quiet) as on_step:
                made = self.cascade(
                    prompts, self.frames, self.fps, generators, callback_on_step_end=on_step, **self.options
                )
            assert made.frames is not None, "check has seen that there is a decoder"
            shown, fps = [view(np.stack([np.asarray(one) for one in video])) for video in made.frames], made.fps
            for path, video in zip(paths, shown, strict=True):
                write_video(path, video, fps, overwrite=force)
        self._say(shown_otherwise(paths[0], shown[0].shape[1:3], fps))
        return shown, fps

    def record(self) -> dict[str, Any]:
        """What the videos depend on, for settings that are kept."""
        used = {name: asdict(values) for name, values in self.cascade.chosen_settings(self.options).items()}
        said = {"prompts": self.prompts, "seed": self.seed, "fps": self.fps, "frames": self.frames, "stages": used}
        said |= {name: self.options[name] for name in ("frame_skip", "until")}
        return said | {"device": str(self.cascade.device)}

    def _state(self, prompts: list[str]) -> ChainState:
        """What the chain begins with."""
        most = MAX_STREAMED_FRAMES if self._is_long() else MAX_FRAMES
        timing = Timing(self.frames, self.fps, self.options["frame_skip"], most)
        told_nothing = self.cascade.told_nothing()
        state = first_state(prompts or None, None, timing, None, self.options["segments"], told_nothing)
        begin = self.options.get("init_image"), self.options.get("strength", 1.0)
        return begun(state, self.cascade.stage("decoder"), *begin)

    def _say_how_long(self, output: Path) -> None:
        """Of long videos, all of one length."""
        state, settings = self._state(self.prompts[:1]), self.cascade.chosen_settings(self.options)
        found = seconds_of_stream(self.cascade, state, settings, self.options["until"])
        if found is not None:
            seconds, count, size = found
            videos = max(1, len(self.prompts))
            say_how_long(None, output, videos * count, size, videos * seconds)

    def _is_long(self) -> bool:
        """Whether the decoder cuts the video into windows."""
        window = self.cascade.window_size()
        return window is not None and self.frames > window

    def _say(self, sentence: str) -> None:
        if sentence and not self.quiet:
            typer.echo(sentence, err=True)

    def _cropped(self) -> str:
        """What of the picture that frames begin as is not in them, in a sentence; empty where all of it is."""
        if self.options.get("init_image") is None:
            return ""
        size = picture_size(self.options["init_image"])
        made = drawn_pixels(self.cascade.stage("decoder"))
        share = round(100 * cropped_share(*size, made))
        of = f"{made[1]} x {made[0]} px begin as the centre of a picture of {size[1]} x {size[0]}"
        return f"Frames of {of}; {share} % at the edges is cropped." if share else ""

    def _stream(self, paths: list[Path], view: View, force: bool) -> tuple[list[np.ndarray], float]:
        """A chunk at a time; of a long video only what the sheet shows stays in memory."""
        rows, fps = [], self.fps
        if not self.quiet:
            self._say_how_long(paths[0])
        for prompt, path in zip(self.prompts or [None], paths, strict=True):
            with progress_bar(self.quiet) as on_step:
                made = self.cascade.stream(
                    prompt, self.frames, self.fps, self._generator(), callback_on_step_end=on_step, **self.options
                )
                fps = made.fps
                kept = _Kept(set(spread(made.num_frames, SHEET_COLUMNS).tolist()))
                chunks = (view(to_uint8(chunk[None])[0]) for chunk in made.chunks)
                write_video(path, (kept(chunk) for chunk in chunks), fps, overwrite=force)
            rows.append(kept.frames())
        return rows, fps

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


class _Kept:
    """Keeps those frames of a video whose numbers are wanted, while its chunks go by."""

    def __init__(self, wanted: set[int]) -> None:
        self.wanted, self.seen = wanted, 0
        self.kept: list[np.ndarray] = []

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        self.kept += [frame.copy() for number, frame in enumerate(chunk, self.seen) if number in self.wanted]
        self.seen += len(chunk)
        return chunk

    def frames(self) -> np.ndarray:
        """Those kept, (F, H, W, 3)."""
        return np.stack(self.kept)
