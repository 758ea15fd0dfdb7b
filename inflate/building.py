"""Networks are built and read by one thread of a process at a time.

diffusers and transformers take torch's random starts away, and put parameters on the meta device, by changing torch
itself while they build a network: another thread that builds one meanwhile gets no numbers, or none of its own.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_building = threading.RLock()


def alone(build: Callable[P, T]) -> Callable[P, T]:
    """``build``, for which other threads that are in such a function are waited for."""

    @wraps(build)
    def waiting(*arguments: P.args, **options: P.kwargs) -> T:
        with _building:
            return build(*arguments, **options)

    return waiting
