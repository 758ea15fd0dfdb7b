"""One evaluation of a network on videos, inflated or frame by frame, with the arguments that a conditioner gives."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import call_image_model, find_adapter
from inflate.inflater import InflatedModel


def predict(
    model: nn.Module,
    noisy: Tensor,
    timestep: Tensor,
    arguments: Mapping[str, Any],
    fps: Tensor | float | None,
) -> Tensor:
    """What a network predicts for videos, with gradients.

    Args:
        model: an ``InflatedModel``, or an image model, which sees each frame on its own.
        noisy: (B, c, F, h, w).
        timestep: (B,) or one for all, in the scheduler's own units, of which its adapter makes the network's.
        arguments: the network's own, tensors of first size B; floating point ones are cast to its dtype.
        fps: frames per second, one or (B,), told to models whose scheme takes it.

    Returns:
        (B, c, F, h, w), float32: channels of a learned variance behind the prediction are cut off.
    """
    return predict_channels(model, noisy, timestep, arguments, fps)[:, : noisy.shape[1]]


def predict_channels(
    model: Any, noisy: Tensor, timestep: Tensor, arguments: Mapping[str, Any], fps: Tensor | float | None = None
) -> Tensor:
    """As :func:`predict`, float32, with whatever channels the network has."""
    dtype = None if torch.is_autocast_enabled(noisy.device.type) else model.dtype
    told: dict[str, Any] = cast(arguments, noisy.device, dtype)
    sample = noisy if dtype is None else noisy.to(dtype)
    inflated = isinstance(model, InflatedModel)
    adapter = find_adapter(model.image_model if inflated else model)
    if adapter is not None:
        timestep = adapter.model_timestep(torch.as_tensor(timestep, device=noisy.device), sample.dtype)
    if inflated:
        rate = {} if fps is None or model.scheme.fps_range is None else {"fps": fps}
        return model(sample, timestep, **rate, **told).sample.float()
    # A stand-in of somebody's own is called as it is.
    call = model if adapter is None else partial(call_image_model, model)
    pictures = [call(frame, timestep, **told).sample.float() for frame in sample.unbind(2)]
    return torch.stack(pictures, dim=2)


def cast(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """``value`` with its tensors on ``device``, and those of floating point in ``dtype`` if there is one."""
    if isinstance(value, Mapping):
        return {key: cast(item, device, dtype) for key, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)
