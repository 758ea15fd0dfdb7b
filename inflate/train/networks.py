"""The networks that a step of our own families starts from, made new or read, with one sentence where that fails."""

from typing import Any

import torch

from inflate.checkpoint import resolve_path
from inflate.errors import InputError
from inflate.stages import read_diffusers_component


def new_network(network_class: Any, arguments: dict[str, Any], **more: Any) -> Any:
    """A network with random weights, from ``options.model`` and what the step adds to it.

    Raises:
        InputError: there is no such network.
    """
    try:
        return network_class(**arguments, **more)
    except Exception as error:  # diffusers' constructors check little: what does not fit fails somewhere inside
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"options.model does not fit {network_class.__name__}: {reason.rstrip('.')}.") from error


def check_model(network_class: Any, arguments: dict[str, Any], **more: Any) -> None:
    """Raise ``InputError`` as :func:`new_network`, without room for any weights."""
    with torch.device("meta"):
        new_network(network_class, arguments, **more)


def read_network(network_class: Any, folder: str, option: str) -> Any:
    """A diffusers model in float32 from the folder that ``options.<option>`` names, ``bundled:NAME`` resolved.

    Raises:
        InputError: no such folder, or a damaged one.
    """
    try:
        return read_diffusers_component(resolve_path(folder), "diffusers", network_class.__name__, torch.float32)
    except InputError as error:
        raise InputError(f"options.{option}: {error}") from error
