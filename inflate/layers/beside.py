"""Trained changes beside a projection of the image model, from the same input."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inflate.layers.layer import Call, TemporalLayer
from inflate.layers.place import Place, plain_module
from inflate.layers.starting import zero_


class QueryChange(TemporalLayer, nn.Linear):
    """Added to the answer of a query projection; starts at zero.

    What Tune-A-Video (arXiv:2212.11565, section 4.1) trains in place is here beside the image weights.
    """

    suffix = "-change"
    kind = "query"
    mixes = False
    own_projections = True

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """Shaped like the projection."""
        layer = cls(plain_module(module).in_features, place.channels, bias=False)  # type: ignore[arg-type]  # a Linear's int
        zero_(layer)
        return layer

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return "changes to spatial queries"

    def after(self, states: Tensor, call: Call) -> Tensor:
        """The projection's answer plus the layer's."""
        return states - (0 - self(call.args[0]))


class ExtraInput(TemporalLayer, nn.Conv2d):
    """A convolution of channels that the video has beyond the image model's own, beside the first one.

    It starts at zero: new inputs change nothing. With ``own_conv_in`` it takes all channels, those of the image model
    first, with that one's weights at its start, and its answer is put in place of the first convolution's (PIA,
    arXiv:2312.13964).
    """

    options: ClassVar[Mapping[str, Any]] = {"extra_in_channels": 1, "own_conv_in": False}
    suffix = "-extra"
    kind = "extra_input"
    first = True  # before the temporal convolution there, as if the first convolution itself were wider
    mixes = False
    whole = False  # whether it takes all channels

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """Shaped like the first convolution."""
        first, whole = plain_module(module), options["own_conv_in"]
        assert isinstance(first, nn.Conv2d), "every supported UNet begins with a Conv2d"
        own = first.in_channels if whole else 0
        size, padding = first.kernel_size, first.padding
        layer = cls(own + options["extra_in_channels"], first.out_channels, size, padding=padding, bias=whole)  # type: ignore[arg-type]  # pairs; torch's stubs say tuples of any length
        layer.whole = whole
        nn.init.zeros_(layer.weight)
        if own and first.weight.device.type != "meta":
            with torch.no_grad():
                layer.weight[:, :own] = first.weight
                if layer.bias is not None and first.bias is not None:
                    layer.bias.copy_(first.bias)
        return layer

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return f"{options['extra_in_channels']} more input channels"

    def after(self, states: Tensor, call: Call) -> Tensor:
        """``states`` (B*F, C, H, W) plus the convolved extra channels, or what takes their place."""
        extra = call.frames.extra_input
        if extra is None:
            return states
        return self(torch.cat([call.args[0], extra], dim=1)) if self.whole else states + self(extra)
