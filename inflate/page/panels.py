"""The page's left side: a panel for each application, of which one is seen, and the settings that all share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from inflate.errors import InputError
from inflate.page import wishes
from inflate.page.abilities import APPLICATIONS, RECONSTRUCTION, Abilities
from inflate.page.handlers import MakeWish
from inflate.page.previews import Seen, preview_picture, preview_video
from inflate.page.results import Updates, status_html

EXAMPLES = ("party popper", "rocket", "beating heart", "waving hand", "grinning cat", "hatching chick")
MODEL = "model"  # the panel that opens another one
_PICTURES = ["image"]
_VIDEOS = ["video", ".gif", ".webp", ".avif", ".mkv"]
_LOOKS_AT_ONCE = 2


@dataclass(frozen=True)
class Panel:
    """An application's button, what it makes, and its own inputs.

    ``method`` and ``prompt``, which are among these, are there where it knows reconstruction; ``asks`` is hidden for
    models that are told nothing.
    """

    button: gr.Button
    wish: MakeWish
    inputs: list[Any]
    method: gr.Radio | None = None
    prompt: gr.Textbox | None = None
    asks: gr.Column | None = None


@dataclass(frozen=True)
class Controls:
    """What all applications share; ``all`` in the order of ``Settings.read``."""

    all: list[Any]
    skip: gr.Slider
    weight: gr.Slider
    negative: gr.Textbox


@dataclass(frozen=True)
class ModelPanel:
    """Where another model is opened."""

    name: gr.Dropdown
    button: gr.Button
    said: gr.Markdown


@dataclass(frozen=True)
class Panels:
    """All of the left side."""

    choice: gr.Radio
    excuses: gr.Markdown
    by_name: dict[str, Panel]
    controls: Controls
    model: ModelPanel | None  # where others than the owner's are offered

    def dressed(self) -> list[Any]:
        """The components that :meth:`dress` changes."""
        shared = [self.choice, self.excuses, self.controls.skip, self.controls.weight, self.controls.negative]
        own = [(panel.method, panel.prompt, panel.asks) for panel in self.by_name.values()]
        return [*shared, *(one for each in own for one in each if one is not None)]

    def dress(self, abilities: Abilities) -> Updates:
        """Show what a model can be asked for, and hide the rest."""
        completes = any(RECONSTRUCTION in ways for ways in abilities.methods.values())
        updates: Updates = {
            self.choice: gr.update(choices=_choices(abilities, self.model is not None)),
            self.excuses: gr.update(value=abilities.excuses(), visible=bool(abilities.why_not)),
            self.controls.skip: gr.update(visible=abilities.interpolates),
            self.controls.weight: gr.update(visible=completes),
            self.controls.negative: gr.update(visible=abilities.told == "text"),
        }
        for name, panel in self.by_name.items():
            ways = abilities.methods.get(name, ())
            if panel.method is not None:
                usual = next(iter(ways), None)
                updates[panel.method] = gr.update(
                    choices=[(way, way) for way in ways], value=usual, visible=len(ways) > 1
                )
            if panel.prompt is not None:
                updates[panel.prompt] = gr.update(visible=abilities.completes_by_prompt)
            if panel.asks is not None:
                updates[panel.asks] = gr.update(visible=abilities.told != "nothing")
        return updates


def build_panels(abilities: Abilities, folder: Path, offered: list[str]) -> Panels:
    """The left side, for a model of these abilities; small pictures of uploads go below ``folder``.

    ``offered`` are names of models that visitors may open instead.
    """
    choices = _choices(abilities, bool(offered))
    first = choices[0][1]
    # Not tabs, which hide behind a menu where they find no room: these go on in the next line.
    choice = gr.Radio(choices, value=first, label="What to make", elem_id="what")
    excuses = gr.Markdown(elem_id="excuses")
    makers: dict[str, Callable[[], Panel]] = {
        "generate": _prompt_panel,
        "animate": lambda: _animate_panel(folder),
        "between": lambda: _between_panel(folder),
        "faster": lambda: _faster_panel(folder),
        "extend": lambda: _extend_panel(folder),
        "infill": lambda: _infill_panel(folder),
        "vary": lambda: _vary_panel(folder),
        "upscale": lambda: _upscale_panel(folder),
    }
    columns, by_name = {}, {}
    for name in APPLICATIONS:
        with gr.Column(visible=name == first, elem_id=f"panel-{name}") as columns[name]:
            by_name[name] = makers[name]()
    model = None
    if offered:
        with gr.Column(visible=first == MODEL, elem_id="panel-model") as columns[MODEL]:
            model = _model_panel(offered)
    choice.change(
        lambda chosen: [gr.update(visible=name == chosen) for name in columns],
        choice,
        list(columns.values()),
        show_progress="hidden",
        queue=False,
    )
    panels = Panels(choice, excuses, by_name, _controls(), model)
    for component, update in panels.dress(abilities).items():
        for name, value in update.items():
            if name in ("visible", "value", "choices"):
                setattr(component, name, value)
    return panels


def _choices(abilities: Abilities, others: bool) -> list[tuple[str, str]]:
    return [*abilities.choices(), *([("Another model", MODEL)] if others else [])]


def _button(text: str, name: str) -> gr.Button:
    return gr.Button(text, variant="primary", elem_id=f"go-{name}")


def _prompt_panel() -> Panel:
    with gr.Column() as asks:
        prompt = gr.Textbox(label="What should the video show?", placeholder=EXAMPLES[0], elem_id="prompt", lines=2)
        gr.Examples([[text] for text in EXAMPLES], prompt, cache_examples=False)
    return Panel(_button("Make a video", "prompt"), wishes.generate, [prompt], asks=asks)


def _animate_panel(folder: Path) -> Panel:
    image = _upload("A picture; it becomes the first frame", "animate-image", _PICTURES, preview_picture, folder)
    return Panel(_button("Animate", "animate"), wishes.animate, [image])


def _between_panel(folder: Path) -> Panel:
    with gr.Row():
        with gr.Column(min_width=140):
            first = _upload("First frame", "first-image", _PICTURES, preview_picture, folder)
        with gr.Column(min_width=140):
            last = _upload("Last frame", "last-image", _PICTURES, preview_picture, folder)
    return Panel(_button("Fill in between", "between"), wishes.between, [first, last])


def _faster_panel(folder: Path) -> Panel:
    video, method, prompt = _video_inputs("faster", folder)
    times = gr.Slider(2, 8, 2, step=1, label="How many times as many frames")
    button = _button("Add frames", "faster")
    return Panel(button, wishes.faster, [video, times, method, prompt], method, prompt)


def _extend_panel(folder: Path) -> Panel:
    video, method, prompt = _video_inputs("extend", folder)
    new = gr.Slider(1, 24, 8, step=1, label="Frames to add")
    return Panel(_button("Go on", "extend"), wishes.extend, [video, new, method, prompt], method, prompt)


def _infill_panel(folder: Path) -> Panel:
    video = _upload("A short video", "infill-video", _VIDEOS, preview_video, folder)
    missing = gr.Textbox(label="Frames to make anew, counted from 0", placeholder="4-11", elem_id="infill-missing")
    prompt = _prompt_of_known("infill")
    return Panel(_button("Fill gaps", "infill"), wishes.infill, [video, missing, prompt], prompt=prompt)


def _vary_panel(folder: Path) -> Panel:
    video = _upload("A short video", "vary-video", _VIDEOS, preview_video, folder)
    return Panel(_button("Vary", "vary"), wishes.vary, [video])


def _upscale_panel(folder: Path) -> Panel:
    video, method, prompt = _video_inputs("upscale", folder)
    return Panel(_button("Upscale", "upscale"), wishes.upscale, [video, method, prompt], method, prompt)


def _model_panel(offered: list[str]) -> ModelPanel:
    name = gr.Dropdown(offered, label="Models that are offered here", elem_id="model-name")
    return ModelPanel(name, gr.Button("Open", elem_id="go-model"), gr.Markdown(elem_id="model-opened"))


def _video_inputs(name: str, folder: Path) -> tuple[gr.File, gr.Radio, gr.Textbox]:
    """A video, and for models that know several, the method, and the prompt that one of them reads."""
    video = _upload("A short video", f"{name}-video", _VIDEOS, preview_video, folder)
    method = gr.Radio([], label="Method", elem_id=f"{name}-method")
    return video, method, _prompt_of_known(name)


def _prompt_of_known(name: str) -> gr.Textbox:
    return gr.Textbox(label="What the video shows (for reconstruction)", elem_id=f"{name}-prompt")


def _upload(label: str, name: str, kinds: list[str], preview: Callable[[str, Path], Seen], folder: Path) -> gr.File:
    """A file that we read ourselves: Gradio's own pictures and videos take fewer kinds, and fail without words."""
    file = gr.File(label=label, file_types=kinds, elem_id=name, height=140)
    picture = gr.Image(visible=False, show_label=False, interactive=False, type="filepath", height=220)
    said = gr.HTML(visible=False, elem_id=f"{name}-said")

    def look(path: str | None) -> tuple[Any, Any]:
        hidden = gr.update(value=None, visible=False)
        if path is None:
            return hidden, hidden
        try:
            seen = preview(path, folder)
        except InputError as error:
            return hidden, gr.update(value=status_html(str(error), wrong=True), visible=True)
        return gr.update(value=seen.picture, visible=True), gr.update(value=status_html(seen.facts), visible=True)

    file.change(
        look, file, [picture, said], show_progress="hidden", concurrency_id="look", concurrency_limit=_LOOKS_AT_ONCE
    )
    return file


def _controls() -> Controls:
    with gr.Accordion("Settings", open=False):
        negative = gr.Textbox(label="What to stay away from (negative prompt)", elem_id="negative")
        fps = gr.Slider(1, 30, 5, step=1, label="Key frames per second")
        frames = gr.Slider(2, 32, 16, step=1, label="Key frames")
        skip = gr.Slider(1, 8, 5, step=1, label="Frame rate times (1: no frames between)")
        guidance = gr.Slider(1, 8, 2, step=0.1, label="Guidance")
        weight = gr.Slider(0, 4, 1, step=0.1, label="Weight of known frames (for reconstruction)", elem_id="weight")
        random = gr.Checkbox(True, label="A new seed each time", elem_id="random")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=wishes.MAX_SEED, elem_id="seed")
    return Controls([fps, frames, skip, guidance, random, seed, weight, negative], skip, weight, negative)
