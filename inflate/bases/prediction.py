"""One evaluation of a network on videos, inflated or frame by frame, with the arguments that a conditioner gives."""

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import call_image_model, find_adapter
from inflate.inflater import InflatedModel
from inflate.schemes import Scheme


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
    sample, at, told = network_inputs(model, noisy, timestep, arguments, fps)
    return network_of(model)(sample, at, **told).sample.float()


def network_inputs(
    model: Any, noisy: Tensor, timestep: Tensor, arguments: Mapping[str, Any], fps: Tensor | float | None = None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Sample, time step and arguments as :func:`network_of` is called with them: on its device, in its dtype."""
    dtype = None if torch.is_autocast_enabled(noisy.device.type) else model.dtype
    told: dict[str, Any] = cast(arguments, noisy.device, dtype)
    sample = noisy if dtype is None else noisy.to(dtype)
    adapter = find_adapter(model.image_model if isinstance(model, InflatedModel) else model)
    if adapter is not None:
        timestep = adapter.model_timestep(torch.as_tensor(timestep, device=noisy.device), sample.dtype)
    scheme = scheme_of(model)
    if scheme is not None and fps is not None and scheme.fps_range is not None:
        told["fps"] = fps
    return sample, timestep, told


def network_of(model: Any) -> Callable[..., Any]:
    """What answers (sample, timestep, **arguments) with a ``sample`` of its own: an inflated model itself.

    An image model sees pictures (B, c, h, w) together, and a video (B, c, F, h, w) frame by frame.
    """
    if scheme_of(model) is not None:
        return model
    # A stand-in of somebody's own is called as it is.
    call = model if find_adapter(model) is None else partial(call_image_model, model)

    def by_frame(sample: Tensor, timestep: Tensor, **arguments: Any) -> Any:
        if sample.ndim != 5:
            return call(sample, timestep, **arguments)
        answers = [call(frame, timestep, **arguments) for frame in sample.unbind(2)]
        return SimpleNamespace(sample=torch.stack([answer.sample for answer in answers], dim=2))

    return by_frame


def scheme_of(model: Any) -> Scheme | None:
    """The scheme of a model that sees videos, inflated or a stand-in for that; None of an image model."""
    return getattr(model, "scheme", None)


def cast(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """``value`` with its tensors on ``device``, and those of floating point in ``dtype`` if there is one."""
    if isinstance(value, Mapping):
        return {key: cast(item, device, dtype) for key, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)
