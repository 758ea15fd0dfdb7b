"""The page's right side: where the job is, the picture once and large, and what can be taken away; else nothing."""

import html
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from inflate.page.jobs import Result, Status

Updates = dict[Any, Any]
"""New values of components, by component; those left out stay."""


class ResultArea:
    """The components, made where the page is being laid out, and what they show in each state."""

    def __init__(self) -> None:
        self.status = gr.HTML(status_html("ready"), elem_id="status")
        self.cancel = gr.Button("Cancel", size="sm", elem_id="cancel", visible=False)
        shown: dict[str, Any] = {"interactive": False, "visible": False, "height": 480}
        self.preview = gr.Image(label="So far", elem_id="preview", type="filepath", format="webp", **shown)
        self.video = gr.Video(label="Video", elem_id="result", autoplay=True, loop=True, **shown)
        with gr.Accordion(
            "Compare before and after super-resolution", open=False, visible=False, elem_id="compare"
        ) as compare:
            self.slider = gr.ImageSlider(elem_id="slider", interactive=False, show_label=False)
        self.compare = compare
        self.files = gr.Files(
            label="mp4, gif, webp, and the settings that make it again",
            elem_id="files",
            interactive=False,
            visible=False,
        )
        with gr.Row(visible=False) as again:
            self.seed = gr.Number(label="Seed of this video", interactive=False, precision=0, elem_id="last-seed")
            self.reuse = gr.Button("Use this seed again", size="sm", elem_id="reuse")
        self.again = again
        self.past = gr.Dropdown([], label="Your videos", elem_id="past", visible=False, interactive=True)

    def components(self) -> list[Any]:
        """All that an update may change."""
        return [
            self.status,
            self.cancel,
            self.preview,
            self.video,
            self.compare,
            self.slider,
            self.files,
            self.again,
            self.seed,
            self.past,
        ]

    def begun(self, finished: Sequence[Result]) -> Updates:
        """A job has entered the line: nothing of an earlier one stays but the list of them."""
        hidden = {one: gr.update(visible=False) for one in (self.preview, self.compare, self.files, self.again)}
        return hidden | {
            self.status: status_html("starting", 0.0),
            self.cancel: gr.update(value="Cancel", visible=True),
            self.video: gr.update(value=None, visible=False),
            self.past: self._past(finished, None),
        }

    def waiting(self, place: int, seconds: float | None) -> Updates:
        """It has a place in the line, and may begin in so many seconds."""
        when = "how long is not known yet" if seconds is None else f"begins in about {duration(seconds)}"
        return {self.status: status_html(f"waiting: place {place} in the queue · {when}")}

    def running(self, status: Status, preview: str | None) -> Updates:
        """It is being made; ``preview`` where there are new frames to show."""
        updates = {self.status: status_html(status_line(status), status.fraction)}
        return updates | ({self.preview: gr.update(value=preview, visible=True)} if preview else {})

    def stopped(self, line: str, wrong: bool = False) -> Updates:
        """It ended without a video."""
        return {
            self.status: status_html(line, wrong=wrong),
            self.cancel: gr.update(visible=False),
            self.preview: gr.update(visible=False),
        }

    def done(self, result: Result, finished: Sequence[Result]) -> Updates:
        """There is a video."""
        line = f"done: {result.num_frames} frames in {duration(result.seconds)} {result.left_out}".rstrip()
        return {
            self.status: status_html(line, 1.0),
            self.cancel: gr.update(visible=False),
            self.preview: gr.update(value=None, visible=False),
            self.video: gr.update(value=result.written.mp4, visible=True),
            self.compare: gr.update(visible=result.compared is not None),
            self.slider: gr.update(value=result.compared),
            self.files: gr.update(value=result.written.all(), visible=True),
            self.again: gr.update(visible=True),
            self.seed: result.seed,
            self.past: self._past(finished, result),
        }

    def _past(self, finished: Sequence[Result], shown: Result | None) -> Any:
        """The list of a visitor's videos, newest first; hidden where there is none but the one that is shown."""
        choices = [(f"{number}. {one.title}", number) for number, one in enumerate(finished, 1)]
        value = finished.index(shown) + 1 if shown in finished and shown is not None else None
        return gr.update(choices=choices[::-1], value=value, visible=len(finished) > (shown is not None))


def status_html(line: str, fraction: float | None = None, wrong: bool = False) -> str:
    """A line, with a bar under it where a share from 0 to 1 is known."""
    width = round(100 * min(1.0, max(0.0, fraction or 0.0)))
    bar = "" if fraction is None else f'<div class="inflate-bar"><div style="width:{width}%"></div></div>'
    kind = "inflate-wrong" if wrong else "inflate-status"
    return f'<div class="{kind}" role="status" aria-live="polite">{html.escape(line)}{bar}</div>'


def status_line(status: Status) -> str:
    """What a job does, how far it is, and how long it will take; full is what has ended alone."""
    left = "" if status.left is None else f" · about {duration(status.left)} left"
    return f"{status.line} · {min(99, math.floor(100 * status.fraction))}%{left}"


def duration(seconds: float) -> str:
    """Seconds, or minutes or hours where these are many, for people; at least a second."""
    if seconds < 120:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} minutes" if seconds < 7200 else f"{math.ceil(seconds / 3600)} hours"
