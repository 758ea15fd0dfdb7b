"""What ↑F is told beside its noisy sample: the known frames, and which frames are masked.

Make-A-Video, arXiv:2209.14792, section 3.3: channels of the masked video, zeros where a frame is masked, and one binary
channel that says which frames are. They enter through a convolution of their own beside ``conv_in``
(``Scheme.extra_in_channels``), which belongs to the temporal weights and starts at zero, so that an interpolation model
begins as the decoder D^t it comes from.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.inflater import InflatedModel, Scheme, inflate

EXTRA_KEYS = ("conv_in-extra.weight",)
"""The temporal weights that D^t has not."""


def interpolation_scheme(scheme: Scheme, channels: int) -> Scheme:
    """``scheme`` with room for ``channels`` of known frames (latents, or pixels) and one of the mask."""
    return scheme.changed(extra_in_channels=channels + 1)


def check_interpolates(model: Any) -> None:
    """Raise ``InputError`` unless ``model`` is an inflated model that takes known frames and a mask."""
    channels, extra = int(model.config.in_channels), model.scheme.extra_in_channels
    if extra != channels + 1:
        raise InputError(
            f"This model takes {extra} channels beside its {channels}; a frame interpolation model takes "
            f"{channels + 1}: the known frames and which are masked."
        )


def start_from_decoder(
    image_model: nn.Module, scheme: Scheme, num_frames: int, temporal: Mapping[str, Tensor]
) -> InflatedModel:
    """An interpolation model that answers as D^t does, whatever it is told of known frames.

    Args:
        image_model: D, not inflated.
        scheme: D^t's, or an interpolation model's, to go on with that.
        num_frames: D^t's.
        temporal: D^t's temporal weights.

    Raises:
        InputError: ``temporal`` lacks another weight than ``EXTRA_KEYS``, or has an unknown one; ``image_model`` is
            still inflated then.
    """
    # diffusers' config, which torch's stubs take for a tensor or a module.
    channels = int(image_model.config.in_channels)  # type: ignore[arg-type, union-attr]
    model = inflate(image_model, interpolation_scheme(scheme, channels), num_frames)
    new = {} if scheme.extra_in_channels else {name: model.temporal_state_dict()[name] for name in EXTRA_KEYS}
    model.load_temporal_state_dict(new | dict(temporal))
    return model


def join_condition(sample: Tensor, known: Tensor, known_mask: Tensor) -> Tensor:
    """The network's input: noisy sample, known frames, mask.

    Args:
        sample: (B, c, F, h, w).
        known: (B, c, F, h, w); what it holds of masked frames does not matter.
        known_mask: (F,) or (B, F) bool, True where a frame is known.

    Returns:
        (B, 2 c + 1, F, h, w); the last channel is 1 where a frame is masked.
    """
    told = known_mask.to(sample.device).expand(sample.shape[0], -1)[:, None, :, None, None]
    masked = (~told).to(sample.dtype).expand(-1, 1, -1, *sample.shape[-2:])
    return torch.cat([sample, torch.where(told, known, 0).to(sample.dtype), masked], dim=1)
