"""How the page is put on the network: what its owner allows by options of ``inflate app``."""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from inflate.errors import InputError
from inflate.page.gate import Gate

MAX_SIZE = 50_000_000
# Visitors whose page's state is kept; the one seen longest ago is forgotten first.
SESSIONS_KEPT = 500

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_ROOT = re.compile(r"(https?://[^/\s?#]+)?(/[^\s?#]*)?", re.ASCII)


@dataclass(frozen=True)
class Serving:
    """What the owner allows: who may enter, where the page is seen from outside, and how much a visitor may bring."""

    auth: tuple[str, str] | None = None
    root_path: str = ""
    max_size: int = MAX_SIZE  # bytes of an upload

    def options(self, folder: Path) -> dict[str, Any]:
        """Arguments of Gradio's ``launch``; visitors' files lie in ``folder``."""
        gate = Middleware(Gate, uploads=folder, max_size=self.max_size)
        return {
            "auth": self.auth,
            "root_path": self.root_path or None,
            "max_file_size": self.max_size,
            "app_kwargs": {"middleware": [gate]},
            "state_session_capacity": SESSIONS_KEPT,
            "enable_monitoring": False,
            "footer_links": ["gradio", "settings"],  # its others lead to what the gate refuses
            "ssr_mode": False,
            "mcp_server": False,
            "pwa": False,
        }


def read_auth(text: str | None) -> tuple[str, str] | None:
    """User and password of ``USER:PASSWORD``, or of the first line of the file in ``@FILE``.

    Raises:
        InputError: neither, or the file cannot be read.
    """
    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = next(iter(Path(text[1:]).read_text(encoding="utf-8").splitlines()), "")
        except (OSError, ValueError) as error:
            raise InputError(
                f"--auth {text} names a file that cannot be read; give a file with USER:PASSWORD"
            ) from error
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise InputError("--auth takes USER:PASSWORD, or @FILE with that in its first line; neither part may be empty.")
    return user.strip(), password


def read_size(text: str) -> int:
    """Bytes of ``20MB``, ``500kB``, ``1.5GB`` or a plain number.

    Raises:
        InputError: not a size above zero.
    """
    match = _SIZE.fullmatch(text.strip())
    size = round(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise InputError(
            f"--max-size {text!r} is not a size; write bytes, or a number with kB, MB or GB, such as 50MB."
        )
    return size


def read_root_path(text: str) -> str:
    """Where a proxy shows the page: ``/videos`` or ``https://example.org/videos``, without a slash at its end.

    Raises:
        InputError: neither a path nor an address.
    """
    if not text or not _ROOT.fullmatch(text):
        raise InputError(f"--root-path {text!r} is not where a page can be; write /path or https://host/path.")
    return text.rstrip("/")


def check_address(host: str, port: int) -> None:
    """Raise ``InputError`` where nothing can listen on ``port`` of ``host``; 0 stands for any free one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"Port {port} of {host} cannot be used ({reason}); choose another with --port or --host."
        ) from error


def seen_by_others(host: str, auth: tuple[str, str] | None) -> str:
    """A warning where machines beside this one can see the page; else empty."""
    if all(ip_address(address).is_loopback for address in _addresses(host)):
        return ""
    asked = "with the password of --auth, sent unencrypted" if auth else "without a password (--auth asks for one)"
    return (
        f"WARNING: --host {host} lets every machine that reaches this one use the page, {asked}; see docs/serving.md."
    )


def _addresses(host: str) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:  # a name
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]


def read_models_folder(folder: Path | None) -> Path | None:
    """The folder below which visitors may open models.

    Raises:
        InputError: it is not a folder.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(f"--allow-models {folder} is not a folder; name the one that holds the models' folders.")
    return folder.resolve()
