"""What every test runs under: no model hub, no network, the same random numbers each time."""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

# Set before any test module imports diffusers, transformers or huggingface_hub, which read them once, at import.
os.environ.update(
    HF_HUB_OFFLINE="1",
    DIFFUSERS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, so each leaves the other cores alone.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine must not fail a test that passes; a failing example must come back in the next run.
settings.register_profile("inflate", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("inflate")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that tests begin keep and find nothing in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class NetworkUseError(RuntimeError):
    """A test tried to reach another machine; not an ``OSError``, so that no library's retry swallows it."""


def is_loopback(host: object) -> bool:
    """Whether ``host``, a name or an address as sockets take it, is this machine."""
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if name.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(host: object) -> None:
    if not is_loopback(host):
        raise NetworkUseError(f"a test tried to reach {host!r}; tests may use this machine's loopback addresses only")


def _guard_address(call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse(address[0])
        return call(self, *arguments)

    return guarded


def _guard_name(call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: Any, *arguments: Any, **options: Any) -> Any:
        _refuse(host)
        return call(host, *arguments, **options)

    return guarded


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse every connection and every name look-up that would leave this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _guard_address(getattr(socket.socket, name)))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, name, _guard_name(getattr(socket, name)))
        yield
