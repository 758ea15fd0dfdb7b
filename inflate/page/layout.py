"""The page itself: tabs on one side, what is made on the other; one below the other on a phone."""

from pathlib import Path
from typing import Any

import gradio as gr

from inflate.errors import InputError
from inflate.page.handlers import MAX_SEED, Handlers, guarded
from inflate.page.jobs import Models
from inflate.page.serving import MAX_QUEUE

TITLE = "inflate: an image model that makes videos"
EXAMPLES = ("party popper", "rocket", "beating heart", "waving hand", "grinning cat", "hatching chick")
CSS = """
.inflate-status, .inflate-wrong { padding: .6em .8em; border-radius: .5em; background: var(--block-background-fill); }
.inflate-wrong { border-left: .3em solid #c00; }
.inflate-bar { height: .4em; margin-top: .4em; border-radius: .2em; background: var(--border-color-primary); }
.inflate-bar div { height: 100%; border-radius: .2em; background: var(--color-accent); transition: width .3s; }
@media (max-width: 640px) { .gradio-container { padding: .4em !important; } }
"""


def build_page(
    models: Models, model: str = "bundled:emoji", folder: Path | None = None, max_queue: int = MAX_QUEUE
) -> gr.Blocks:
    """The page for a default model; files of visitors go below ``folder`` (default: the temporary folder), and
    ``max_queue`` of them may wait."""
    handlers = Handlers(models, folder)
    # Files are kept a day and looked through each hour.
    with gr.Blocks(title=TITLE, delete_cache=(3600, 86400), analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\nText, pictures or a short video in; a video out. Each stage's frames appear as it ends."
        )
        chosen_model = gr.State(model)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                tabs = _tabs(handlers, chosen_model)
                controls = _controls()
            with gr.Column(min_width=320):
                outputs, cancel = _results()
                reuse = gr.Button("Use this seed again", size="sm", elem_id="reuse")
        reuse.click(lambda seed: (False, seed), outputs[-1], controls[-2:], show_progress="hidden")
        started: Any = [
            button.click(
                _for_gradio(guarded(action)),
                [chosen_model, *inputs, *controls],
                outputs,
                concurrency_id="video",
                concurrency_limit=1,
                show_progress="hidden",
            )
            for button, action, inputs in tabs
        ]
        # The running job ends by itself first, or what it still has to say would come after "cancelled".
        cancel.click(_on_cancel(handlers), queue=False, show_progress="hidden").then(
            lambda: '<div class="inflate-status" role="status">cancelled</div>',
            None,
            outputs[0],
            cancels=started,
            queue=False,
            show_progress="hidden",
        )
        page.unload(_on_unload(handlers))
    # Without the queue nobody may run what has one.
    page.queue(max_size=max_queue, default_concurrency_limit=4, api_open=False)
    page.handlers = handlers  # pyright: ignore[reportAttributeAccessIssue]
    return page


def _for_gradio(action: Any) -> Any:
    # Gradio finds the request by its annotation, among the positional arguments alone.
    def handler(request: gr.Request, *arguments: Any) -> Any:
        yield from action(*arguments, session=str(request.session_hash))

    return handler


def _on_cancel(handlers: Handlers) -> Any:
    def cancel(request: gr.Request) -> None:
        handlers.cancel_session(str(request.session_hash))

    return cancel


def _on_unload(handlers: Handlers) -> Any:
    def gone(request: gr.Request) -> None:
        handlers.stop_session(str(request.session_hash))

    return gone


def _tabs(handlers: Handlers, chosen_model: gr.State) -> list[tuple[gr.Button, Any, list[Any]]]:
    """A tab per application: its button, its action, and its own inputs."""
    found = []
    with gr.Tabs():
        with gr.Tab("Prompt", id="prompt"):
            prompt = gr.Textbox(label="What should the video show?", placeholder=EXAMPLES[0], elem_id="prompt", lines=2)
            gr.Examples([[text] for text in EXAMPLES], prompt, cache_examples=False)
            found.append(
                (gr.Button("Make a video", variant="primary", elem_id="go-prompt"), handlers.generate, [prompt])
            )
        with gr.Tab("Animate", id="animate"):
            image = gr.Image(
                type="filepath", image_mode=None, label="A picture; it becomes the first frame", elem_id="animate-image"
            )
            found.append((gr.Button("Animate", variant="primary", elem_id="go-animate"), handlers.animate, [image]))
        with gr.Tab("Between two", id="between"):
            with gr.Row():
                first = gr.Image(
                    type="filepath", image_mode=None, label="First frame", elem_id="first-image", min_width=140
                )
                last = gr.Image(
                    type="filepath", image_mode=None, label="Last frame", elem_id="last-image", min_width=140
                )
            button = gr.Button("Fill in between", variant="primary", elem_id="go-between")
            found.append((button, handlers.between, [first, last]))
        with gr.Tab("Extend", id="extend"):
            video = gr.Video(label="A short video", elem_id="extend-video")
            new = gr.Slider(1, 24, 8, step=1, label="Frames to add")
            found.append((gr.Button("Go on", variant="primary", elem_id="go-extend"), handlers.extend, [video, new]))
        with gr.Tab("Vary", id="vary"):
            video = gr.Video(label="A short video", elem_id="vary-video")
            found.append((gr.Button("Vary", variant="primary", elem_id="go-vary"), handlers.vary, [video]))
        with gr.Tab("Upscale", id="upscale"):
            video = gr.Video(label="A short video", elem_id="upscale-video")
            found.append((gr.Button("Upscale", variant="primary", elem_id="go-upscale"), handlers.upscale, [video]))
        if offered := handlers.models.offered.names():
            _model_tab(handlers, chosen_model, offered)
    return found


def _model_tab(handlers: Handlers, chosen_model: gr.State, offered: list[str]) -> None:
    """A choice among the models that the owner offers."""
    with gr.Tab("Models", id="model"):
        name = gr.Dropdown(offered, label="Models that are offered here", elem_id="model-name")
        opened = gr.Markdown(elem_id="model-opened")

        def open_model(text: str, before: str) -> tuple[str, str]:
            try:
                return handlers.open_model(text)
            except InputError as error:
                return before, f"**Not opened.** {error}"

        gr.Button("Open", elem_id="go-model").click(open_model, [name, chosen_model], [chosen_model, opened])


def _controls() -> list[Any]:
    """fps, frames, skip, guidance, random, seed: in the order of ``Settings.read``."""
    with gr.Accordion("Settings", open=False):
        fps = gr.Slider(1, 30, 5, step=1, label="Key frames per second")
        frames = gr.Slider(2, 32, 16, step=1, label="Key frames")
        skip = gr.Slider(1, 8, 5, step=1, label="Frame rate times (1: no frames between)")
        guidance = gr.Slider(1, 8, 2, step=0.1, label="Guidance")
        random = gr.Checkbox(True, label="A new seed each time", elem_id="random")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
    return [fps, frames, skip, guidance, random, seed]


def _results() -> tuple[list[Any], gr.Button]:
    """status, preview, video, slider, files, last seed; and the button that cancels."""
    status = gr.HTML('<div class="inflate-status" role="status">ready</div>', elem_id="status")
    cancel = gr.Button("Cancel", size="sm", elem_id="cancel")
    preview = gr.Image(label="So far", elem_id="preview", interactive=False, height=260, type="filepath", format="webp")
    video = gr.Video(label="Video", elem_id="result", interactive=False, autoplay=True, loop=True, height=420)
    slider = gr.ImageSlider(label="Before and after super-resolution", elem_id="slider", interactive=False)
    files = gr.Files(label="mp4, gif, webp, and the settings that make it again", elem_id="files", interactive=False)
    seed = gr.Number(label="Seed of this video", interactive=False, precision=0, elem_id="last-seed")
    return [status, preview, video, slider, files, seed], cancel
