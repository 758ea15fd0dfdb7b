"""One evaluation of a network on videos, inflated or frame by frame, with the arguments that a conditioner gives."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
)
from torch import Tensor, nn

from inflate.inflater import InflatedModel, call_image_model

_TRANSFORMERS = (DiTTransformer2DModel, FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel)
TIMESTEPS = 1000  # that FLUX counts as 1


def predict(
    base_family: str,
    model: nn.Module,
    noisy: Tensor,
    timestep: Tensor,
    arguments: Mapping[str, Any],
    fps: Tensor | float | None,
) -> Tensor:
    """What a network predicts for videos, with gradients.

    Args:
        base_family: of :class:`~inflate.bases.base.Base`.
        model: an ``InflatedModel``, or an image model, which sees each frame on its own.
        noisy: (B, c, F, h, w).
        timestep: (B,) or one for all, in the scheduler's own units; what FLUX takes is a thousandth of it.
        arguments: the network's own, tensors of first size B; floating point ones are cast to its dtype.
        fps: frames per second, one or (B,), told to models whose scheme takes it.

    Returns:
        (B, c, F, h, w), float32: channels of a learned variance behind the prediction are cut off.
    """
    made = predict_channels(model, noisy, timestep, arguments, fps, base_family == "flux")
    return made[:, : noisy.shape[1]]


def predict_channels(
    model: Any,
    noisy: Tensor,
    timestep: Tensor,
    arguments: Mapping[str, Any],
    fps: Tensor | float | None = None,
    fractions: bool | None = None,
) -> Tensor:
    """As :func:`predict`, float32, with whatever channels the network has.

    ``fractions``: whether it takes timesteps as FLUX does; None sees for itself.
    """
    dtype = None if torch.is_autocast_enabled(noisy.device.type) else model.dtype
    told: dict[str, Any] = cast(arguments, noisy.device, dtype)
    sample = noisy if dtype is None else noisy.to(dtype)
    if is_flux(model) if fractions is None else fractions:  # in the network's dtype, as FLUX's pipeline does it
        timestep = torch.as_tensor(timestep, device=noisy.device).to(sample.dtype) / TIMESTEPS
    if isinstance(model, InflatedModel):
        rate = {} if fps is None or model.scheme.fps_range is None else {"fps": fps}
        return model(sample, timestep, **rate, **told).sample.float()
    # What is no transformer is called as it is, a stand-in of somebody's own too.
    call = partial(call_image_model, model) if isinstance(model, _TRANSFORMERS) else model
    pictures = [call(frame, timestep, **told).sample.float() for frame in sample.unbind(2)]
    return torch.stack(pictures, dim=2)


def is_flux(model: nn.Module) -> bool:
    """Whether a network, inflated or not, is FLUX's."""
    return isinstance(model.image_model if isinstance(model, InflatedModel) else model, FluxTransformer2DModel)


def cast(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """``value`` with its tensors on ``device``, and those of floating point in ``dtype`` if there is one."""
    if isinstance(value, Mapping):
        return {key: cast(item, device, dtype) for key, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)
