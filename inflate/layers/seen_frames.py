"""Spatial self-attention that sees other frames of the video too, or instead, with its spatial weights."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from einops import rearrange
from torch import nn

from inflate.layers.layer import Call, Options, TemporalLayer
from inflate.layers.place import Place

FramesSeen = Literal["first", "first-and-previous", "all"]
FRAMES_SEEN: tuple[FramesSeen, ...] = get_args(FramesSeen)
_TOKENS = ("hidden_states", "encoder_hidden_states")


class SeenFrames(TemporalLayer):
    """Which frames a spatial self-attention sees; it has no weights, and equal frames are seen as one.

    ``"first"`` is cross-frame attention (Text2Video-Zero, arXiv:2303.13439, eq. 10), ``"first-and-previous"`` sparse-
    causal attention (Tune-A-Video, arXiv:2212.11565, eq. 5), and ``"all"`` one sequence of all frames' tokens.
    """

    options: ClassVar[Options] = {"frames_seen": "first"}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"frames_seen": FRAMES_SEEN}
    words = "spatial attention to {frames_seen} frames"
    suffix = "-frames"
    kind = "self_attention"
    needed = True

    def __init__(self, frames_seen: FramesSeen) -> None:
        super().__init__()
        self.frames_seen: FramesSeen = frames_seen
        self.own_projections = frames_seen != "all"

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Options) -> TemporalLayer:
        """The same everywhere."""
        return cls(options["frames_seen"])

    def before(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The attention's arguments with tokens of other frames: its keys and values, or all.

        Of one frame, all others are itself: the image model's answer, without a copy of each token.
        """
        num_frames = call.frames.num_frames
        if num_frames == 1:
            return None
        if self.frames_seen == "all":
            assert call.place.gather is not None, "every adapter says how"
            return (), call.place.gather(call.arguments(), num_frames)
        tokens = call.args[0] if call.args else call.kwargs["hidden_states"]
        videos = tokens.unflatten(0, (-1, num_frames))
        seen = videos[:, :1].expand_as(videos)
        if self.frames_seen == "first-and-previous":
            seen = torch.cat([seen, torch.cat([videos[:, :1], videos[:, :-1]], dim=1)], dim=2)
        rest = {name: value for name, value in call.kwargs.items() if name not in _TOKENS}
        return (tokens, seen.flatten(0, 1), *call.args[2:]), rest

    def answer(self, output: Any, call: Call) -> Any:
        """Each frame's tokens for itself again: tensors (B, F*N, D) as (B*F, N, D)."""
        if self.frames_seen != "all" or call.frames.num_frames == 1:
            return output
        if isinstance(output, tuple):
            return tuple(self.answer(part, call) for part in output)
        return rearrange(output, "b (f n) d -> (b f) n d", f=call.frames.num_frames)
