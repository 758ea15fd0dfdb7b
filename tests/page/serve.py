"""The page on a free port of this machine, as ``inflate app`` serves it, over tiny untrained networks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inflate.cascade import Cascade


@contextlib.contextmanager
def served(stages: tuple[Any, ...], offered: Path | None = None, **allowed: Any) -> Iterator[SimpleNamespace]:
    """A page whose one model plays ``stages``; ``allowed`` are fields of ``Serving``."""
    from inflate.page.jobs import Models
    from inflate.page.layout import CSS, build_page
    from inflate.page.serving import Serving, uploads_of, visitors_folder

    serving = Serving(**allowed)
    models = Models("cpu", offered=offered)
    models.add("tiny", Cascade(stages, device="cpu", keep_loaded=True))
    with visitors_folder() as folder:
        page: Any = build_page(models, "tiny", folder, serving.max_queue)
        options = {"server_name": "127.0.0.1", "prevent_thread_lock": True, "quiet": True, "css": CSS}
        _, url, _ = page.launch(**options, **serving.options(folder))
        yield SimpleNamespace(
            url=url.rstrip("/"), page=page, handlers=page.handlers, folder=folder, files=uploads_of(folder)
        )
        page.close()
