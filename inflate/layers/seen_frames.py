"""Spatial self-attention that sees other frames of the video too, or instead, with its spatial weights."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from einops import rearrange
from torch import nn

from inflate.layers.frames import FrameContext
from inflate.layers.layer import FrameHook, TemporalLayer
from inflate.layers.place import Place

FramesSeen = Literal["first", "first-and-previous", "all"]
FRAMES_SEEN: tuple[FramesSeen, ...] = get_args(FramesSeen)
_TOKENS = ("hidden_states", "encoder_hidden_states")
_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class SeenFrames(TemporalLayer):
    """Which frames a spatial self-attention sees; it has no weights, and equal frames are seen as one.

    ``"first"`` is cross-frame attention (Text2Video-Zero, arXiv:2303.13439, eq. 10), ``"first-and-previous"`` sparse-
    causal attention (Tune-A-Video, arXiv:2212.11565, eq. 5), and ``"all"`` one sequence of all frames' tokens.
    """

    options: ClassVar[Mapping[str, Any]] = {"frames_seen": "first"}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"frames_seen": FRAMES_SEEN}
    suffix = "-frames"
    kind = "self_attention"
    trains = False
    needed = True

    def __init__(self, frames_seen: FramesSeen) -> None:
        super().__init__()
        self.frames_seen: FramesSeen = frames_seen
        self.own_projections = frames_seen != "all"

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """The same everywhere."""
        return cls(options["frames_seen"])

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        seen = {"first": "the first frame", "first-and-previous": "the first and the previous frame"}
        return f"spatial attention looks at {seen.get(options['frames_seen'], 'all frames')}"

    def hang(self, module: nn.Module, place: Place, context: FrameContext) -> list[Any]:
        """See `TemporalLayer`."""
        if self.frames_seen != "all":
            hook = _OtherFramesHook(self.frames_seen, module, place, context)
            return [module.register_forward_pre_hook(hook, with_kwargs=True)]
        gather, scatter = _GatherHook(module, place, context), _ScatterHook(module, place, context)
        return [module.register_forward_pre_hook(gather, with_kwargs=True), module.register_forward_hook(scatter)]


class _OtherFramesHook(FrameHook):
    """Before an attention: its keys and values come from other frames. The projections are the image model's own."""

    def __init__(self, frames_seen: FramesSeen, module: nn.Module, place: Place, context: FrameContext) -> None:
        super().__init__(module, place, context)
        self.frames_seen = frames_seen

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments | None:
        """The call's arguments with the tokens of other frames as `encoder_hidden_states`."""
        # Of one frame, the first and the previous are itself: the image model's answer, without a copy of each token.
        if self.context.now is None or self.context.now.num_frames == 1:
            return None
        tokens = args[0] if args else kwargs["hidden_states"]
        videos = tokens.unflatten(0, (-1, self.context.now.num_frames))
        first = videos[:, :1].expand_as(videos)
        if self.frames_seen == "first":
            seen = first
        else:
            previous = torch.cat([videos[:, :1], videos[:, :-1]], dim=1)
            seen = torch.cat([first, previous], dim=2)
        rest = {name: value for name, value in kwargs.items() if name not in _TOKENS}
        return (tokens, seen.flatten(0, 1), *args[2:]), rest


class _GatherHook(FrameHook):
    """Before an attention: the tokens of all frames of a video in one sequence."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments | None:
        """The call's arguments, all by name, gathered."""
        if self.context.now is None or self.context.now.num_frames == 1:
            return None
        assert self.place.gather is not None, "every adapter says how"
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        return (), self.place.gather(arguments, self.context.now.num_frames)


class _ScatterHook(FrameHook):
    """After that attention: each frame's tokens for itself again."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """`output`, its tensors (B, F*N, D) being (B*F, N, D)."""
        if self.context.now is None or self.context.now.num_frames == 1:
            return output
        num_frames = self.context.now.num_frames
        if isinstance(output, tuple):
            return tuple(rearrange(part, "b (f n) d -> (b f) n d", f=num_frames) for part in output)
        return rearrange(output, "b (f n) d -> (b f) n d", f=num_frames)
