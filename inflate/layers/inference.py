"""When a layer may take its way for inference on a CPU: raw matrix products, results written where they belong.

The other way, out of place and module by module, is for gradients, autocast, compilers, low precision, quantised or
wrapped projections, and for layers at the identity, whose answer must have the very bits of their input. Both ways
compute the same formula; results differ by rounding.
"""

import torch
from torch import Tensor, nn

from inflate.layers.starting import is_plain

_DTYPES = (torch.float32, torch.float64)


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


def tokens_of(pictures: Tensor) -> Tensor:
    """``(F, C, H, W)`` to a new ``(F, N, C)``. Frame by frame: only of a matrix does torch copy the transpose fast."""
    channels_by_pixels = pictures.flatten(2)
    tokens = pictures.new_empty(pictures.shape[0], channels_by_pixels.shape[2], pictures.shape[1])
    for frame, picture in zip(tokens, channels_by_pixels, strict=True):
        frame.copy_(picture.t())
    return tokens


def attend_over_frames(query: Tensor, key: Tensor, value: Tensor, num_heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention of each token over its frames: ``(F, N, D)`` each, to ``(F, N, D)``, a view of ``(N, F, D)``."""
    q, k, v = (one.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for one in (query, key, value))
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2).transpose(0, 1)
