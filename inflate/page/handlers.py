"""What happens when a button is pressed: checks, a job, and updates of the page until the video is there."""

import html
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from inflate.cascade import Cascade, CascadeOutput
from inflate.errors import InputError
from inflate.page.files import Request, before_and_after, write_all, write_preview
from inflate.page.jobs import Job, Made, Models, Preview, Status
from inflate.page.uploads import check_picture, check_prompt, check_video, fit_for_upscaling
from inflate.stages import CancelledError

MAX_SEED = 2**31 - 1

# status, preview, video, slider, files, seed shown
Updates = tuple[Any, Any, Any, Any, Any, Any]


@dataclass(frozen=True)
class Settings:
    """The page's own settings, as its controls give them."""

    fps: float
    num_frames: int
    frame_skip: int
    guidance_scale: float
    seed: int

    @classmethod
    def read(
        cls, fps: float, frames: float, skip: float, guidance: float, random: bool, seed: float | None
    ) -> "Settings":
        """From controls; a random seed where one is asked for or none is given."""
        chosen = secrets.randbelow(MAX_SEED) if random or seed is None else int(seed)
        if not 0 <= chosen <= MAX_SEED:
            raise InputError(f"The seed must be a whole number from 0 to {MAX_SEED}.")
        return cls(float(fps), int(frames), int(skip), float(guidance), chosen)


Make = Callable[[Cascade, dict[str, Any]], CascadeOutput]


class Handlers:
    """The page's actions over a set of models; each is a generator of updates."""

    def __init__(self, models: Models, folder: Path | None = None) -> None:
        self.models, self.folder = models, folder
        self._jobs: dict[str, set[Job]] = {}
        self._lock = threading.Lock()

    def generate(self, model: str, prompt: str, *controls: Any, session: str = "") -> Iterator[Updates]:
        """A prompt becomes a video."""
        text, chosen = check_prompt(prompt), Settings.read(*controls)
        options = {"frames": chosen.num_frames, "fps": chosen.fps, "frame_skip": chosen.frame_skip}
        request = Request("generate", (text,), model, chosen.seed, options)
        numbers = (chosen.num_frames, chosen.fps)
        make: Make = lambda cascade, more: cascade(text, *numbers, frame_skip=chosen.frame_skip, **more)  # noqa: E731
        return self._follow(request, chosen, make, session)

    def animate(self, model: str, image: str | None, *controls: Any, session: str = "") -> Iterator[Updates]:
        """A picture moves."""
        picture, chosen = check_picture(image), Settings.read(*controls)
        options = {"frames": chosen.num_frames, "fps": chosen.fps, "frame_skip": chosen.frame_skip}
        request = Request("animate", _names(image), model, chosen.seed, options)
        numbers = (chosen.num_frames, chosen.fps, chosen.frame_skip)
        return self._follow(request, chosen, lambda cascade, more: cascade.animate(picture, *numbers, **more), session)

    def between(
        self, model: str, first: str | None, last: str | None, *controls: Any, session: str = ""
    ) -> Iterator[Updates]:
        """Two pictures become a video from one to the other."""
        ends, chosen = (check_picture(first), check_picture(last)), Settings.read(*controls)
        options = {"frames": chosen.num_frames, "fps": chosen.fps, "frame_skip": chosen.frame_skip}
        request = Request("interpolate", _names(first, last), model, chosen.seed, options)
        numbers = (chosen.num_frames, chosen.fps, chosen.frame_skip)
        return self._follow(
            request, chosen, lambda cascade, more: cascade.interpolate(*ends, *numbers, **more), session
        )

    def extend(
        self, model: str, video: str | None, new_frames: float, *controls: Any, session: str = ""
    ) -> Iterator[Updates]:
        """A video goes on."""
        known, chosen = check_video(video), Settings.read(*controls)
        request = Request("extend", _names(video), model, chosen.seed, {"frames": int(new_frames)})
        return self._follow(
            request, chosen, lambda cascade, more: cascade.extend(known, int(new_frames), **more), session
        )

    def vary(self, model: str, video: str | None, *controls: Any, session: str = "") -> Iterator[Updates]:
        """Another video of the same thing."""
        known, chosen = check_video(video), Settings.read(*controls)
        options = {"frames": chosen.num_frames, "fps": chosen.fps, "frame_skip": chosen.frame_skip}
        request = Request("vary", _names(video), model, chosen.seed, options)
        numbers = (chosen.num_frames, chosen.fps, chosen.frame_skip)
        return self._follow(request, chosen, lambda cascade, more: cascade.vary(known, *numbers, **more), session)

    def upscale(self, model: str, video: str | None, *controls: Any, session: str = "") -> Iterator[Updates]:
        """A video grows."""
        known, chosen = fit_for_upscaling(check_video(video)), Settings.read(*controls)
        request = Request("upscale", _names(video), model, chosen.seed, {})

        return self._follow(
            request, chosen, lambda cascade, more: cascade.upscale(known, **more), session, low=known.frames
        )

    def open_model(self, name: str) -> tuple[str, str]:
        """Open a model that the owner offers; returns the name to use from now on, and what to say."""
        chosen = (name or "").strip()
        cascade = self.models.for_visitor(chosen)
        stages = ", ".join(stage.name for stage in cascade.stages)
        return chosen, f"Opened **{cascade.family or chosen}** with the stages {stages}."

    def stop_session(self, session: str) -> None:
        """Cancel whatever runs for a visitor who has gone."""
        with self._lock:
            for job in self._jobs.pop(session, set()):
                job.cancel()

    def cancel_session(self, session: str, patience: float = 10.0) -> None:
        """Cancel a visitor's jobs and wait, ``patience`` seconds at most, until they have said so on the page."""
        with self._lock:
            for job in self._jobs.get(session, set()):
                job.cancel()
        end = time.monotonic() + patience
        while time.monotonic() < end and session in self._jobs:
            time.sleep(0.05)

    def running(self) -> int:
        """How many jobs have not ended."""
        with self._lock:
            return sum(len(jobs) for jobs in self._jobs.values())

    def _follow(
        self, request: Request, chosen: Settings, make: Make, session: str, low: Any = None
    ) -> Iterator[Updates]:
        cascade = self.models.for_visitor(request.model)
        guidance = _guidance(cascade, chosen.guidance_scale) if request.command != "upscale" else {}
        if guidance:
            told = ",".join(f"{name}={scale:g}" for name, scale in guidance.items())
            request = replace(request, options=request.options | {"guidance_scale": told})

        def run(callbacks: dict[str, Any]) -> CascadeOutput:
            generator = torch.Generator().manual_seed(chosen.seed)
            options = {"generator": generator, "guidance_scale": guidance}
            return make(cascade, callbacks | options)

        job = Job(run)
        with self._lock:
            self._jobs.setdefault(session, set()).add(job)
        try:
            yield _status("starting", 0.0), None, None, None, None, chosen.seed
            yield from self._updates(job, request, low)
        finally:
            job.cancel()
            with self._lock:
                jobs = self._jobs.get(session, set())
                jobs.discard(job)
                if not jobs:
                    self._jobs.pop(session, None)

    def _updates(self, job: Job, request: Request, low: Any) -> Iterator[Updates]:
        same = gr.skip()
        for event in job.events():
            if isinstance(event, Status):
                yield _only_status(_status(_line(event), event.fraction))
            elif isinstance(event, Preview):
                if event.stage in ("decoder", "interpolation"):
                    low = event.frames
                shown = write_preview(event.frames, event.fps, self.folder)
                yield same, shown, same, same, same, same
            elif isinstance(event, Made):
                yield _only_status(_status("writing files", 1.0))
                files = write_all(event.frames, event.fps, request, self.folder)
                slider = None
                if low is not None and low.shape[1] < event.frames.shape[1]:
                    slider = before_and_after(low, event.frames)
                line = f"done: {len(event.frames)} frames in {event.seconds:.0f} s"
                yield _status(line, 1.0), same, files.mp4, slider, files.all(), same


def guarded(action: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
    """The action as Gradio wants it: what the user did wrong becomes a message on the page, and the server lives on."""

    def run(*arguments: Any, session: str) -> Iterator[Updates]:
        try:
            yield from action(*arguments, session=session)
        except CancelledError:
            yield _only_status(_status("cancelled", 0.0))
        except (InputError, RuntimeError) as error:
            yield _only_status(_status(str(error), 0.0, wrong=True))

    return run


def _only_status(status: str) -> Updates:
    same = gr.skip()
    return status, same, same, same, same, same


def _guidance(cascade: Cascade, scale: float) -> dict[str, float]:
    """The page's guidance is the decoder's and the interpolation's; other stages keep their own."""
    return {stage.name: scale for stage in cascade.stages if stage.name in ("decoder", "interpolation")}


def _names(*paths: str | None) -> tuple[str, ...]:
    return tuple(Path(path).name for path in paths if path is not None)


def _line(status: Status) -> str:
    left = "" if status.left is None else f" · about {max(1, round(status.left))} s left"
    return f"{status.line} · {status.fraction:.0%}{left}"


def _status(line: str, fraction: float, wrong: bool = False) -> str:
    kind = "inflate-wrong" if wrong else "inflate-status"
    width = round(100 * min(1.0, max(0.0, fraction)))
    bar = f'<div class="inflate-bar"><div style="width:{width}%"></div></div>' if not wrong else ""
    return f'<div class="{kind}" role="status" aria-live="polite">{html.escape(line)}{bar}</div>'
