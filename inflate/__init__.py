"""Turn an image diffusion model into a video model.

Names are looked up when first used, so that ``import inflate`` (and ``inflate --help``) loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inflate.errors import InputError
from inflate.version import __version__

if TYPE_CHECKING:
    from inflate.cascade import Cascade
    from inflate.checkpoint import load, save
    from inflate.inflater import deflate, inflate

_HOMES = {
    "Cascade": "inflate.cascade",
    "deflate": "inflate.inflater",
    "inflate": "inflate.inflater",
    "load": "inflate.checkpoint",
    "save": "inflate.checkpoint",
}

__all__ = ["Cascade", "InputError", "__version__", "deflate", "inflate", "load", "save"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'inflate' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
