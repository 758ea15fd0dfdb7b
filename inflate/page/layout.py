"""The page itself: what is asked for on one side, what is made on the other; one below the other on a phone."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from inflate.errors import InputError
from inflate.page.abilities import Abilities
from inflate.page.handlers import Handlers
from inflate.page.jobs import Models
from inflate.page.line import Line
from inflate.page.panels import ModelPanel, Panel, Panels, build_panels
from inflate.page.results import ResultArea, Updates, duration
from inflate.page.shelf import Shelf

TITLE = "inflate: an image model that makes videos"
WHAT = "Text, pictures or a short video in; a video out. Each stage's frames appear as it ends."
MAX_WAITING = 24
_EVENTS_WAITING = 200  # clicks that Gradio has not looked at yet
KEEP_SECONDS = 6 * 3600.0
CSS = """
.inflate-status, .inflate-wrong { padding: .6em .8em; border-radius: .5em; background: var(--block-background-fill); }
.inflate-wrong { border-left: .3em solid #c00; }
.inflate-bar { height: .4em; margin-top: .4em; border-radius: .2em; background: var(--border-color-primary); }
.inflate-bar div { height: 100%; border-radius: .2em; background: var(--color-accent); transition: width .3s; }
@media (max-width: 640px) { .gradio-container { padding: .4em !important; } }
"""


def build_page(
    models: Models,
    model: str = "bundled:emoji",
    folder: Path | None = None,
    max_waiting: int = MAX_WAITING,
    keep_seconds: float = KEEP_SECONDS,
) -> gr.Blocks:
    """The page for a default model, one worker behind it.

    Args:
        models: the models it may use.
        model: the one that is opened at first.
        folder: below it lies the folder of visitors' files; default: the temporary folder. It becomes Gradio's for
            this process (``GRADIO_TEMP_DIR``), whose uploads go into it too.
        max_waiting: videos that may wait while one is made; more are refused in a sentence.
        keep_seconds: uploads and videos are removed, and a visitor's list forgotten, after this time.

    Raises:
        InputError: there is no such model.
    """
    abilities = Abilities.of(models.get(model))
    shelf, line = Shelf(folder, keep_seconds), Line(max_waiting, keep_seconds)
    os.environ["GRADIO_TEMP_DIR"] = str(shelf.folder)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\n{WHAT}")
        token, chosen_model = gr.BrowserState("", storage_key="inflate-visitor"), gr.State(model)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                panels = build_panels(abilities, shelf.folder, models.offered.names())
            with gr.Column(min_width=320):
                area = ResultArea()
        gr.Markdown(f"What you upload and make is removed from this server after {duration(keep_seconds)}.")
        handlers = Handlers(models, line, shelf.folder, area)
        for panel in panels.by_name.values():
            _on_start(handlers, panel, panels, [token, chosen_model])
        _on_others(handlers, area, panels, token)
        if panels.model is not None:
            _on_model(handlers, panels, panels.model, chosen_model)
        _on_coming_and_going(page, handlers, area, token)
    # Nobody may run without the queue what has one.
    page.queue(max_size=_EVENTS_WAITING, default_concurrency_limit=4, api_open=False)
    page.handlers, page.shelf = handlers, shelf  # pyright: ignore[reportAttributeAccessIssue]  # for its owner
    return page


def _on_start(handlers: Handlers, panel: Panel, panels: Panels, who: list[Any]) -> None:
    controls = panels.controls.all

    # Gradio finds the request by its annotation, among the positional arguments alone.
    async def start(request: gr.Request, token: str, model: str, *inputs: Any) -> AsyncIterator[Updates]:
        tab = str(request.session_hash)
        async for updates in handlers.start(panel.wish, token, tab, model, *inputs, num_controls=len(controls)):
            yield updates

    panel.button.click(
        start,
        [*who, *panel.inputs, *controls],
        handlers.area.components(),
        # The line lets one through at a time; those who look at it are many.
        concurrency_limit=None,
        # "once" would drop the click that comes while a cancelled one is still being wound up.
        trigger_mode="multiple",
        show_progress="hidden",
    )


def _on_others(handlers: Handlers, area: ResultArea, panels: Panels, token: gr.BrowserState) -> None:
    """What changes nothing in the line, or shortens it: none of it may wait for a job."""
    everything = area.components()

    def cancel(request: gr.Request, token: str) -> Updates:
        return handlers.cancel(token, str(request.session_hash))

    def show(request: gr.Request, token: str, number: int | None) -> Updates:
        return handlers.show(token, str(request.session_hash), number)

    area.cancel.click(cancel, token, everything, queue=False, show_progress="hidden")
    area.past.input(show, [token, area.past], everything, queue=False, show_progress="hidden")
    random, seed = panels.controls.all[4:6]
    area.reuse.click(lambda value: (False, value), area.seed, [random, seed], queue=False, show_progress="hidden")


def _on_model(handlers: Handlers, panels: Panels, model: ModelPanel, chosen_model: gr.State) -> None:
    said = model.said

    def open_model(name: str) -> Updates:
        try:
            chosen, line, abilities = handlers.open_model(name)
        except InputError as error:
            return {said: f"**Not opened.** {error}"}
        return panels.dress(abilities) | {chosen_model: chosen, said: line}

    model.button.click(open_model, model.name, [chosen_model, said, *panels.dressed()])


def _on_coming_and_going(page: gr.Blocks, handlers: Handlers, area: ResultArea, token: gr.BrowserState) -> None:
    def arrive(request: gr.Request, known: str) -> str:
        return handlers.line.arrive(known, str(request.session_hash))

    async def resume(request: gr.Request, token: str) -> AsyncIterator[Updates]:
        async for updates in handlers.resume(token, str(request.session_hash)):
            yield updates

    def leave(request: gr.Request) -> None:
        handlers.line.leave(str(request.session_hash))

    page.load(arrive, token, token, show_progress="hidden").then(
        resume, token, area.components(), concurrency_limit=None, show_progress="hidden"
    )
    page.unload(leave)
