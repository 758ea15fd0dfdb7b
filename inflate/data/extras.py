"""Libraries that come with the extra for training."""

from collections.abc import Iterator
from contextlib import contextmanager

from inflate.errors import InputError


@contextmanager
def needs_training_extra() -> Iterator[None]:
    """Turn a failing import inside into one sentence that says what to install."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{error.name or error} is needed to prepare clips and is not installed; run pip install "
            "'inflate-video[train]'"
        ) from error
