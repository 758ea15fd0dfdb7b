"""The temporal layer of each kind of site."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from inflate.adapters import LAYERLESS, Site, SiteKind, adapter_of, plain_module
from inflate.layers import (
    Blend,
    FrameRateEmbedding,
    MotionModule,
    SpacetimePatchIn,
    SpacetimePatchOut,
    TemporalAttention,
    TemporalBlock,
    TemporalConv,
    TemporalResBlock,
)
from inflate.schemes import Scheme

GUIDANCE_KEY = "guidance_embedding"

# A layer for (site, scheme, frames of a clip in training, image model).
Builder = Callable[[Site, Scheme, int, nn.Module], nn.Module]


def build_temporal_layers(
    sites: tuple[Site, ...], scheme: Scheme, num_frames: int, image_model: nn.Module
) -> nn.ModuleDict:
    """New temporal layers for `sites`, float32, on the default device; together they change nothing until trained.

    `image_model` may be on the meta device: only shapes are read off it.
    """
    return nn.ModuleDict({key: make() for key, make in temporal_layer_makers(sites, scheme, num_frames, image_model)})


def temporal_layer_makers(
    sites: tuple[Site, ...], scheme: Scheme, num_frames: int, image_model: nn.Module
) -> list[tuple[str, Callable[[], nn.Module]]]:
    """What `build_temporal_layers` makes, by key and in its order, each layer only when it is called for."""
    makers: dict[str, Callable[[], nn.Module]] = {}
    for site in sites:
        if site.kind == "time_embedding" and scheme.fps_range is None:
            continue
        if site.kind not in LAYERLESS and site.key not in makers:  # one layer may serve several sites
            makers[site.key] = partial(_BUILDERS[site.kind], site, scheme, num_frames, image_model)
    if scheme.guidance_range is not None:
        width = next(site.channels for site in sites if site.kind == "time_embedding")
        makers[GUIDANCE_KEY] = partial(FrameRateEmbedding, width)
    return list(makers.items())


def _convolution(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    return TemporalConv(site.channels, scheme.kernel_size, scheme.depthwise)


def _attention(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    num_heads = max(1, round(site.num_heads * scheme.attention_width))
    head_dim = site.head_dim
    if site.num_heads * scheme.attention_width < 1:  # one spatial head only: a narrower one
        head_dim = max(2, round(site.num_heads * head_dim * scheme.attention_width) // 2 * 2)
    layer = TemporalAttention(
        site.channels, num_heads, head_dim, num_frames, position=scheme.position, start_at_zero=not scheme.merge
    )
    return Blend(layer) if scheme.merge else layer


def _motion_module(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    return MotionModule(
        site.channels,
        num_heads=math.gcd(site.channels, scheme.motion_heads),
        norm_num_groups=math.gcd(site.channels, scheme.norm_num_groups),
        max_frames=scheme.max_frames or num_frames,
        num_layers=scheme.motion_layers,
        norm_over_video=scheme.norm_over_video,
    )


def _residual_block(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    layer = TemporalResBlock(site.channels, math.gcd(site.channels, scheme.norm_num_groups), scheme.kernel_size)
    return Blend(layer) if scheme.merge else layer


def _query(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    layer = nn.Linear(site.in_channels, site.channels, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def _time_embedding(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    return FrameRateEmbedding(site.channels)


def _extra_input(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    """A convolution of the extra channels shaped like the first one, starting at zero: new inputs change nothing.

    With `own_conv_in` it takes all channels, those of the image model's first, with that one's weights at its start.
    """
    first = plain_module(image_model.get_submodule(site.name))
    assert isinstance(first, nn.Conv2d), "every supported UNet begins with a Conv2d"
    own = first.in_channels if scheme.own_conv_in else 0
    layer = nn.Conv2d(
        own + scheme.extra_in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # a pair; torch's stubs say a tuple of any length
        padding=first.padding,  # type: ignore[arg-type]  # as above
        bias=scheme.own_conv_in,
    )
    nn.init.zeros_(layer.weight)
    if own and first.weight.device.type != "meta":
        with torch.no_grad():
            layer.weight[:, :own] = first.weight
            if layer.bias is not None and first.bias is not None:
                layer.bias.copy_(first.bias)
    return layer


def _temporal_block(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    return TemporalBlock(
        site.channels,
        site.num_heads,
        site.head_dim,
        num_frames,
        position=scheme.position,
        condition_dim=None if site.blocks.shared_condition else site.condition_dim,
    )


def _patch_in(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    positions = scheme.frames_seen == "all" and scheme.position != "none"
    config: Any = image_model.config
    patch_size = adapter_of(image_model).patch_size(config)
    return SpacetimePatchIn(site.channels, site.in_channels, patch_size, scheme.patch_frames, positions)


def _patch_out(site: Site, scheme: Scheme, num_frames: int, image_model: nn.Module) -> nn.Module:
    last = image_model.get_submodule(site.name)
    assert isinstance(last, nn.Linear), "every supported transformer ends with a Linear"
    return SpacetimePatchOut(site.channels, last.out_features, scheme.patch_frames)


_BUILDERS: dict[SiteKind, Builder] = {
    "convolution": _convolution,
    "attention": _attention,
    "motion_module": _motion_module,
    "residual_block": _residual_block,
    "transformer_block": _attention,
    "query": _query,
    "time_embedding": _time_embedding,
    "extra_input": _extra_input,
    "temporal_block": _temporal_block,
    "patch_in": _patch_in,
    "patch_out": _patch_out,
}
