"""Stopping long work from outside: whoever may cancel says so around it, and the work ends before its next part."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

T = TypeVar("T")

_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)  # of this thread


class CancelledError(Exception):
    """Somebody asked to stop; whatever was loaded has been released."""


@contextmanager
def cancellable(asked: Callable[[], bool]) -> Iterator[None]:
    """End what this thread does here soon after ``asked()`` is True: before the next call of any module.

    Between two calls lies one layer's work, so this holds in the middle of a network too. No result changes: the
    modules' own hooks, by which some of them choose how to compute, are not touched. A compiled network is one call.

    Raises:
        CancelledError: from the place where the work was.
    """
    before = _asked.set(asked)
    hook = register_module_forward_pre_hook(_before_call)
    try:
        yield
    finally:
        hook.remove()
        _asked.reset(before)


def check_cancelled() -> None:
    """Raise ``CancelledError`` where the :func:`cancellable` work of this thread is to end; else nothing."""
    asked = _asked.get()
    if asked is not None and asked():
        raise CancelledError("cancelled")


def until_cancelled(items: Iterable[T]) -> Iterator[T]:
    """The same items, :func:`check_cancelled` before each."""
    for item in items:
        check_cancelled()
        yield item


def _before_call(module: torch.nn.Module, arguments: Any) -> None:
    # A compiled graph must not hold the question, or it would be cut in pieces.
    if not torch.compiler.is_compiling():
        check_cancelled()
