"""Widening the first convolution of an image model."""

import torch
from torch import nn

from inflate.adapters import adapter_of
from inflate.errors import InputError, a


def widen_conv_in(image_model: nn.Module, extra_channels: int) -> nn.Module:
    """Give `image_model` `extra_channels` more input channels, after its own, whose weights are zero; in place.

    This edits the image model, config included, and so makes another architecture of it (its fingerprint changes). To
    give only the video model more inputs, and leave the image model as it is, set `extra_in_channels` in a `Scheme`
    instead: those weights are temporal weights, which train while the image model is frozen.

    Returns:
        `image_model` itself. Whatever finite numbers the new channels hold, its answer is the same as before: bit for
        bit in float32 on the CPU, up to rounding where a backend sums a wider convolution in another order (bfloat16
        does). `extra_in_channels` is exact everywhere.

    Raises:
        InputError: not a UNet that can be inflated, or `extra_channels` below 1.
    """
    if adapter_of(image_model).family != "UNet":
        raise InputError(f"{a(type(image_model).__name__)} has no first convolution to widen; only UNets have")
    if extra_channels < 1:
        raise InputError(f"extra_channels must be at least 1, got {extra_channels}")
    conv_in = image_model.get_submodule("conv_in")
    assert isinstance(conv_in, nn.Conv2d), "every supported image model begins with a Conv2d"
    weight = conv_in.weight
    zeros = torch.zeros(weight.shape[0], extra_channels, *weight.shape[2:], dtype=weight.dtype, device=weight.device)
    conv_in.weight = nn.Parameter(torch.cat([weight.detach(), zeros], dim=1), requires_grad=weight.requires_grad)
    conv_in.in_channels += extra_channels
    image_model.register_to_config(in_channels=conv_in.in_channels)  # type: ignore[operator]  # diffusers' own
    return image_model
