"""What may be asked of the page's server: the routes a browser needs, files that were uploaded, bodies of limited size.

Gradio's server offers more: it fetches addresses that a request names, opens doors to the model hub, keeps recordings
and links. A visitor of this page needs none of that: what is not on the list is refused before Gradio sees it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api"
MAX_JSON_BYTES = 1 << 16
# What a form adds to the file in it.
_FORM_BYTES = 1 << 12
# Files of this many uploads of the greatest size may lie on the server at a time, results included.
UPLOADS_KEPT = 40

_PAGE = "/ /config /info /theme.css /favicon.ico /robots.txt /manifest.json /startup-events"
_VISITOR = "/login_check /user /token /app_id /logout /queue/data /queue/status /upload_progress"
_LOOKED_AT = frozenset(f"{_PAGE} {_VISITOR}".split())
_FOLDERS = ("/assets/", "/static/", "/svelte/", "/heartbeat/")
_LOGIN, _UPLOAD, _FILE = "/login", f"{API}/upload", f"{API}/file="
_ASKED = frozenset({_LOGIN, "/queue/join", "/cancel", "/reset"})
_RUN = "/run/"


class Gate:
    """ASGI middleware around the page; ``uploads`` is the folder of visitors' files, ``max_size`` an upload's bytes."""

    def __init__(self, app: ASGIApp, uploads: Path, max_size: int) -> None:
        self.app, self.uploads, self.max_size = app, uploads.resolve(), max_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with a refusal, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None and scope["method"] == "POST" and scope["path"] != _UPLOAD:
            body = await _read(receive)
            if body is not None and scope["path"] != _LOGIN:
                body, refused = self._checked(body)
            if body is None:
                refused = _sentence("This is more than the page asks for.", 413)
            else:
                receive = _again(body, receive)
        await (refused or self.app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        method, path = scope.get("method", ""), scope["path"]
        if scope["type"] != "http" or not _is_needed(method, path):
            return _sentence("This page has no such address.", 404)
        if path.startswith(_FILE) and not self.is_uploaded(path.removeprefix(_FILE)):
            return _sentence("Only files that were uploaded or made here are handed out.", 403)
        if path == _UPLOAD:
            return self._refused_upload(dict(scope["headers"]).get(b"content-length", b"").decode("latin-1"))
        return None

    def _refused_upload(self, length: str) -> Response | None:
        if not length.isdecimal():
            return PlainTextResponse("An upload must say how large it is.", 411)
        if int(length) > self.max_size + _FORM_BYTES:
            return PlainTextResponse(f"This is too large: at most {readable(self.max_size)} can be uploaded.", 413)
        if _bytes_below(self.uploads) + int(length) > UPLOADS_KEPT * self.max_size:
            return PlainTextResponse("The server has no room for more files just now: please try again later.", 507)
        return None

    def _checked(self, body: bytes) -> tuple[bytes, Response | None]:
        """JSON as it was understood here, so that nobody after this reads it in another way; or a refusal."""
        try:
            value = json.loads(body, parse_constant=_no_number)
            named = list(_named_files(value))
        except (ValueError, RecursionError):
            return body, _sentence("This is not what the page sends.", 400)
        if not all(self.is_uploaded(name) for name in named):
            return body, _sentence("Only files that were uploaded here can be used: upload it first.", 403)
        return json.dumps(value).encode(), None

    def is_uploaded(self, name: object) -> bool:
        """Whether ``name`` is the absolute path of a file in the folder of visitors' files, links followed."""
        if not isinstance(name, str) or not os.path.isabs(name):
            return False
        try:
            path = Path(name).resolve()
            return path.is_relative_to(self.uploads) and path.is_file()
        except (OSError, ValueError):  # too long, or with a zero in it
            return False


def readable(size: int) -> str:
    """Bytes in words: 50 MB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _is_needed(method: str, path: str) -> bool:
    own = path.removeprefix(API).rstrip("/") or "/"
    if method in ("GET", "HEAD"):
        return own in _LOOKED_AT or own.startswith(_FOLDERS) or path.startswith(_FILE)
    return method == "POST" and (own in _ASKED or own.startswith(_RUN) or path == _UPLOAD)


def _sentence(text: str, status: int) -> Response:
    return JSONResponse({"detail": text, "error": text}, status)  # Gradio's browser side reads either


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")  # NaN passes every check of a range


async def _read(receive: Receive) -> bytes | None:
    """The body of a request; nothing of one that is too long, or was broken off."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_JSON_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """What hands out a body that was read, then whatever comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def handed_out() -> Message:
        return messages.pop() if messages else await receive()

    return handed_out


def _named_files(value: Any) -> Iterator[object]:
    """What a request's values name as files: a path, or data in place of one."""
    if isinstance(value, dict):
        if "path" in value or "url" in value:
            yield value.get("path")
        if str(value.get("url")).startswith("data:"):
            yield value["url"]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _named_files(part)


def _bytes_below(folder: Path) -> int:
    total = 0
    for here, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(here, name)).st_size
            except FileNotFoundError:  # removed in the meantime
                continue
    return total
