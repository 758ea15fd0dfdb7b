"""``inflate app``: serve the page."""

from typing import Annotated

import typer

from inflate.cli.generate import Device, Dtype, Model, check_device, check_dtype
from inflate.errors import InputError

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 serves other machines too.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)]
Browser = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


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
) -> None:
    """Serve a page for prompts, pictures and videos (needs the app extra)."""
    try:
        import gradio
    except ImportError as error:
        raise InputError("The page needs Gradio; install it with: pip install 'inflate-video[app]'.") from error
    from inflate.page.jobs import Models
    from inflate.page.layout import CSS, build_page

    models = Models(check_device(device), check_dtype(dtype))
    models.get(model)
    page = build_page(models, model)
    try:
        page.launch(
            server_name=host, server_port=port or None, inbrowser=open_browser, css=CSS, theme=gradio.themes.Soft()
        )
    except OSError as error:
        raise InputError(f"Port {port} cannot be used ({error}); choose another with --port.") from error
