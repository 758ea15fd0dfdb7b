"""The table of schemes: which temporal layer goes where, as data (one row each, no subclasses)."""

from inflate.errors import InputError, nearest
from inflate.layers import (
    MotionModule,
    QueryChange,
    SeenFrames,
    SpacetimePatchIn,
    SpacetimePatchOut,
    TemporalAttention,
    TemporalBlock,
    TemporalConv,
    TemporalResBlock,
    Where,
)
from inflate.schemes.placed import Placed, placed
from inflate.schemes.scheme import Numbers, Scheme


def _animatediff(name: str, source: str, max_frames: int, mid: bool = False, norm_over_video: bool = True) -> Scheme:
    options = {"max_frames": max_frames, "norm_over_video": norm_over_video}
    places: tuple[Where, ...] = ("layer", "mid_layer") if mid else ("layer",)
    return Scheme(name, source, tuple(Placed(where, MotionModule, options) for where in places))


_RATES = Numbers(fps_range=(1.0, 30.0))
_ROWS = (
    Scheme(
        "make-a-video",
        "arXiv 2209.14792, sec. 3.2",
        (placed("convolution", TemporalConv), placed("attention", TemporalAttention)),
        _RATES,
    ),
    Scheme("vdm", "arXiv 2204.03458, sec. 3", (placed("attention", TemporalAttention),)),
    # The paper says only that attention takes the place of convolution here; the rest is as in its predecessor, VDM.
    Scheme("imagen-video-base", "arXiv 2210.02303, sec. 2.2", (placed("attention", TemporalAttention),)),
    Scheme("imagen-video-sr", "arXiv 2210.02303, sec. 2.3 (SSR and TSR)", (placed("convolution", TemporalConv),)),
    _animatediff("animatediff-v1", "arXiv 2307.04725, module v1", 24),
    _animatediff("animatediff-v2", "arXiv 2307.04725, module v2", 32, mid=True),
    _animatediff("animatediff-v3", "arXiv 2307.04725, module v3", 32),
    _animatediff("animatediff-sdxl", "arXiv 2307.04725, module for SDXL", 32),
    _animatediff("hotshot-xl", "github.com/hotshotco/Hotshot-XL", 24, norm_over_video=False),
    Scheme(
        "tune-a-video",
        "arXiv 2212.11565, sec. 4.1",
        (
            placed("transformer_block", TemporalAttention, position="none"),
            placed("query", QueryChange),
            placed("self_attention", SeenFrames, frames_seen="first-and-previous"),
        ),
    ),
    Scheme(
        "video-ldm",
        "arXiv 2304.08818, sec. 3.1",
        (
            placed("attention", TemporalAttention, position="sinusoidal", merge=True),
            placed("residual_block", TemporalResBlock),
        ),
    ),
    Scheme("text2video-zero", "arXiv 2303.13439, sec. 3", (placed("self_attention", SeenFrames),)),
    Scheme("latte", "arXiv 2401.03048, variant 1", (placed("modulated_block", TemporalBlock),)),
    Scheme(
        "spacetime-dit",
        "openai.com/index/video-generation-models-as-world-simulators",
        (
            placed("every_attention", SeenFrames, frames_seen="all"),
            placed("patch_in", SpacetimePatchIn, patch_frames=2, position="sinusoidal"),
            placed("patch_out", SpacetimePatchOut),
        ),
    ),
    # SANA-Video's own convolution is a full one, after the feed-forward's last; it also attends to all frames.
    Scheme(
        "sana-video",
        "arXiv 2509.24695, after the temporal convolution of its Mix-FFN",
        (placed("feed_forward", TemporalConv, depthwise=True),),
    ),
    Scheme(
        "lean",
        "ours: least time for most motion",
        (
            placed("last_convolution", TemporalConv, depthwise=True),
            placed("attention", TemporalAttention, attention_width=0.25),
        ),
        _RATES,
    ),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}


def resolve_scheme(scheme: str | Scheme) -> Scheme:
    """The row named `scheme`, or `scheme` itself; `InputError` with the nearest name when there is none."""
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        names = tuple(SCHEMES)
        raise InputError(f"unknown scheme {scheme!r}{nearest(scheme, names)}; known: {', '.join(names)}")
    return SCHEMES[scheme]
