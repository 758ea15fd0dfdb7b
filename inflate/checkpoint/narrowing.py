"""Wide numbers as narrower ones where these can hold them: float16 ends at 65504, and what is beyond is infinite in it.

A tensor that cannot be narrowed stays as it is, which is said: weights of several dtypes are read like others.
"""

import copy
import warnings
from collections.abc import Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from inflate.errors import InputError, Note

Module = TypeVar("Module", bound=nn.Module)


def holds(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Whether no finite number of ``tensor`` becomes infinite in ``dtype``."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    most = torch.finfo(dtype).max
    if torch.finfo(tensor.dtype).max <= most:
        return True
    low, high = torch.aminmax(tensor)
    if -most <= low and high <= most:
        return True
    if dtype.itemsize == 1:  # what is too large for 8 bits becomes their largest number, or none
        return False
    return not bool((tensor.to(dtype).isinf() & tensor.isfinite()).any())  # a little more is rounded down


def narrowed(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Tensors on the CPU for a file: floating-point numbers in ``dtype``, or as they are where it cannot hold them, and
    for None.

    Warns with a :class:`~inflate.errors.Note` of those that it cannot hold.
    """
    if dtype is None:
        return {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    kept = [name for name, one in tensors.items() if not holds(dtype, one)]
    _tell(kept, dtype)
    return {
        name: one.detach().to("cpu", dtype if one.is_floating_point() and name not in kept else one.dtype).contiguous()
        for name, one in tensors.items()
    }


def narrow_copy(module: Module, dtype: torch.dtype) -> Module:
    """A copy of a module whose weights are as :func:`narrowed` has them."""
    module = copy.deepcopy(module)
    kept = []
    for name, one in chain(module.named_parameters(), module.named_buffers()):
        if not holds(dtype, one):
            kept.append(name)
        elif one.is_floating_point():
            one.data = one.data.to(dtype)
    _tell(kept, dtype)
    return module


def check_holds(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Raise ``InputError`` where ``dtype``, which was asked for, cannot hold a number of one of the tensors."""
    for name, one in tensors.items():
        if not holds(dtype, one):
            raise InputError(
                f"{name!r} has numbers up to {float(one.abs().max()):.3g}, which {_word(dtype)} cannot hold, for it "
                f"ends at {torch.finfo(dtype).max:.5g}; save it as bfloat16 or float32"
            )


def _tell(kept: list[str], dtype: torch.dtype) -> None:
    if kept:
        named = ", ".join(repr(name) for name in kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        warnings.warn(
            f"Written in their own dtype, because they have numbers that {_word(dtype)} cannot hold: {named}.",
            Note,
            stacklevel=3,
        )


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
