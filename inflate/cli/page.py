"""``inflate app``: serve the page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from inflate.cli.checks import check_device, check_dtype
from inflate.cli.options import Device, Dtype, Model
from inflate.errors import InputError

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 serves other machines too.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)]
Browser = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
Auth = Annotated[
    str | None,
    typer.Option(
        envvar="INFLATE_AUTH",
        show_envvar=True,
        help="Ask for a password: USER:PASSWORD, or @FILE with that in its first line (unseen in a list of processes).",
    ),
]
RootPath = Annotated[str | None, typer.Option(help="Where a proxy shows the page: /path or https://host/path.")]
MaxQueue = Annotated[int, typer.Option(help="Visitors that may wait; more are asked to come back.", min=1, max=10_000)]
MaxSize = Annotated[str, typer.Option(help="Largest upload: bytes, or a number with kB, MB or GB.")]
AllowModels = Annotated[
    Path | None, typer.Option(help="Folder below which visitors may open models (safetensors only).", metavar="DIR")
]


def register(app: typer.Typer) -> None:
    """Add ``app``."""
    app.command(name="app")(serve)


def serve(
    model: Model = "bundled:emoji",
    host: Host = "127.0.0.1",
    port: Port = 7860,
    open_browser: Browser = False,
    device: Device = None,
    dtype: Dtype = "float32",
    auth: Auth = None,
    root_path: RootPath = None,
    max_queue: MaxQueue = 24,
    max_size: MaxSize = "50MB",
    allow_models: AllowModels = None,
) -> None:
    """Serve a page for prompts, pictures and videos (needs the app extra); docs/serving.md tells of its limits."""
    try:
        import gradio
    except ImportError as error:
        raise InputError("The page needs Gradio; install it with: pip install 'inflate-video[app]'.") from error
    from inflate.page import serving
    from inflate.page.jobs import Models
    from inflate.page.layout import CSS, build_page

    root = "" if root_path is None else serving.read_root_path(root_path)
    allowed = serving.Serving(serving.read_auth(auth), root, serving.read_size(max_size))
    serving.check_address(host, port)
    warning = serving.seen_by_others(host, allowed.auth)
    if warning:
        typer.echo(warning, err=True)
    models = Models(check_device(device), check_dtype(dtype), serving.read_models_folder(allow_models))
    models.get(model)
    page: Any = build_page(models, model, max_waiting=max_queue)
    more = {"inbrowser": open_browser, "css": CSS, "theme": gradio.themes.Soft()}
    try:
        page.launch(server_name=host, server_port=port or None, **more, **allowed.options(page.shelf.folder))
    finally:
        page.shelf.close()
