"""The page on a free port of this machine, as ``inflate app`` serves it, over tiny untrained networks."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inflate.cascade import Cascade


@contextlib.contextmanager
def served(
    stages: tuple[Any, ...], offered: Path | None = None, max_waiting: int = 24, **allowed: Any
) -> Iterator[SimpleNamespace]:
    """A page whose one model plays ``stages``; ``allowed`` are fields of ``Serving``."""
    from inflate.page.jobs import Models
    from inflate.page.layout import CSS, build_page
    from inflate.page.serving import Serving

    before = os.environ.get("GRADIO_TEMP_DIR")  # of another page in this process
    models = Models("cpu", offered=offered)
    models.add("tiny", Cascade(stages, device="cpu", keep_loaded=True))
    page: Any = build_page(models, "tiny", max_waiting=max_waiting)
    options = {"server_name": "127.0.0.1", "prevent_thread_lock": True, "quiet": True, "css": CSS}
    _, url, _ = page.launch(**options, **Serving(**allowed).options(page.shelf.folder))
    try:
        yield SimpleNamespace(url=url.rstrip("/"), handlers=page.handlers, folder=page.shelf.folder, shelf=page.shelf)
    finally:
        page.close()
        page.shelf.close()
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before
