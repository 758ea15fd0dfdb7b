"""The words by which temporal files describe the layers of a scheme.

They are older than lists of layers: a switch for each kind of layer, and options that all layers share. Any version
reads what both know. Layers that have no such words are listed, by the name of their class.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from inflate.layers import (
    ExtraInput,
    MotionModule,
    QueryChange,
    SeenFrames,
    SpacetimePatchIn,
    SpacetimePatchOut,
    TemporalAttention,
    TemporalBlock,
    TemporalConv,
    TemporalLayer,
    TemporalResBlock,
    Where,
)
from inflate.schemes.placed import Placed

# A switch, and the place and the layer that it stands for.
_SWITCHES: tuple[tuple[str, Where, type[TemporalLayer]], ...] = (
    ("convolution", "convolution", TemporalConv),
    ("feed_forward_convolution", "feed_forward", TemporalConv),
    ("attention", "attention", TemporalAttention),
    ("motion_modules", "layer", MotionModule),
    ("mid_motion_module", "mid_layer", MotionModule),
    ("residual_blocks", "residual_block", TemporalResBlock),
    ("token_attention", "transformer_block", TemporalAttention),
    ("queries", "query", QueryChange),
    ("temporal_blocks", "modulated_block", TemporalBlock),
)
# Options, and what they are in a scheme that has no layer for them.
_USUAL: dict[str, Any] = {
    **{"kernel_size": 3, "position": "none", "depthwise": False, "attention_width": 1.0, "merge": False},
    **{"motion_heads": 8, "motion_layers": 1, "norm_num_groups": 32, "norm_over_video": True, "max_frames": None},
    **{"extra_in_channels": 0, "own_conv_in": False, "frames_seen": "own", "patch_frames": 1},
}
USUAL_FIELDS: dict[str, Any] = {
    **{switch: False for switch, _, _ in _SWITCHES},
    **_USUAL,
    **{"every_convolution": True, "layers": None},
}
"""All words, and what they are in a scheme without layers."""


def fields_of(layers: tuple[Placed, ...]) -> dict[str, Any]:
    """`layers` in these words."""
    options = {name: value for one in reversed(layers) for name, value in one.options.items() if name in _USUAL}
    kinds = {(one.where, one.layer) for one in layers}
    last = ("last_convolution", TemporalConv) in kinds
    if "position" not in options and any(one.layer is MotionModule for one in layers):
        options["position"] = "sinusoidal"  # the only ones that they have
    fields = {**USUAL_FIELDS, **options, "every_convolution": not last}
    fields |= {switch: (where, layer) in kinds for switch, where, layer in _SWITCHES}
    fields["convolution"] |= last
    if layers_of(fields) != layers:
        fields["layers"] = [[one.where, one.layer.__name__, dict(one.options)] for one in layers]
    return fields


def layers_of(fields: Mapping[str, Any]) -> tuple[Placed, ...]:
    """The layers that `fields`, all of them, describe; `KeyError` for one that is not known."""
    if fields["layers"] is not None:
        known = {layer.__name__: layer for layer in _kinds_of(TemporalLayer)}
        return tuple(Placed(where, known[name], options) for where, name, options in fields["layers"])

    def told(where: Where, layer: type[TemporalLayer], **options: Any) -> Placed:
        return Placed(where, layer, {name: fields[name] for name in layer.options} | options)

    layers = [told(where, layer) for name, where, layer in _SWITCHES if fields[name]]
    if fields["convolution"] and not fields["every_convolution"]:
        layers[0] = told("last_convolution", TemporalConv)
    seen, frames = fields["frames_seen"], fields["patch_frames"]
    if seen != "own":
        layers.append(told("every_attention" if seen == "all" else "self_attention", SeenFrames))
    if frames != 1 or (seen == "all" and fields["position"] != "none"):
        layers.append(told("patch_in", SpacetimePatchIn, **({} if seen == "all" else {"position": "none"})))
    if frames != 1:
        layers.append(told("patch_out", SpacetimePatchOut))
    if fields["extra_in_channels"] != 0:
        layers.append(told("conv_in", ExtraInput))
    return tuple(layers)


def _kinds_of(layer: type[TemporalLayer]) -> Iterator[type[TemporalLayer]]:
    for kind in layer.__subclasses__():
        yield kind
        yield from _kinds_of(kind)
