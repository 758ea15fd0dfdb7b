"""When a layer may take another way than its formula's to the same answer, and how its numbers lie in memory.

On a CPU without gradients a layer may have a way of its own (`inflate/layers/quick.py`): raw matrix products, results
written where they belong. The formula is for gradients, autocast, compilers, low precision, quantised or wrapped
projections, and for layers at the identity, whose answer must have the very bits of their input. Both compute the same;
results differ by rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inflate.layers.starting import StartsAsIdentity, is_plain

_DTYPES = (torch.float32, torch.float64)
# By class of layer; None where the way does not fit this very layer or these states.
QUICK_WAYS: dict[type[nn.Module], Callable[[Any, Tensor, int], Tensor | None]] = {}


def quick_answer(layer: StartsAsIdentity, states: Tensor, num_frames: int) -> Tensor | None:
    """The layer's answer for ``states``, by a quicker way than its formula; None where there is none or it may not."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return None
    way = QUICK_WAYS.get(type(layer))  # type: ignore[arg-type]  # a layer is a module too
    return None if way is None else way(layer, states, num_frames)


def has_own_way(states: Tensor, witness: object, *projections: nn.Module) -> bool:
    """Whether a layer may use the weights of `projections` by itself, and write in place, for ``states``.

    `witness` is the layer's `identity_witness`: zero means that it may be the identity.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if type(states) is not Tensor or states.device.type != "cpu" or states.dtype not in _DTYPES:
        return False
    if not (is_plain(witness) and isinstance(witness, Tensor) and witness.dtype == states.dtype):
        return False
    return all(_is_plain_linear(layer, states) for layer in projections) and bool(witness.any())


def _is_plain_linear(layer: nn.Module, states: Tensor) -> bool:
    """Not a wrapper, not quantised, and nothing hung on it: hooks, or another `forward` as offloading puts there."""
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    return is_plain(layer.weight) and layer.weight.dtype == states.dtype and layer.weight.device == states.device


def convolve_over_frames(states: Tensor, kernel: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """``nn.Conv1d`` over the frames of each pixel: ``(B * F, C, H, W)`` to the same shape.

    ``kernel`` is ``(C, C, size)``, or ``(C, 1, size)`` for one of each channel by itself. It runs as a 2D convolution
    over (frames, pixels): in channels-last memory that is a view, with nothing to copy. The kernel asks for
    channels-last too, since other memory is up to twice as slow for several videos at once.
    """
    batch, channels, height, width = states.shape
    frames_by_pixels = states.permute(0, 2, 3, 1).reshape(-1, num_frames, height * width, channels)
    # By way of (channels, size, 1, inputs): with one more size of 1 torch does not see the memory format.
    kernel = kernel.transpose(1, 2).unsqueeze(2).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    groups, padding = channels // kernel.shape[1], (kernel.shape[2] // 2, 0)
    answer = F.conv2d(frames_by_pixels.permute(0, 3, 1, 2), kernel, bias, padding=padding, groups=groups)
    return answer.permute(0, 2, 3, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
