"""What the temporal layers must know during one call, and the hooks that run them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import PictureTokens, Site
from inflate.schemes import FramesSeen


@dataclass
class FrameContext:
    """Shared by all hooks of one inflated model; empty outside a call of it, so the image model answers as before.

    One call at a time: two threads must not call one inflated model at once.
    """

    num_frames: int | None = None  # of a video in the image model: groups of frames, where a token covers several
    fps_embedding: Tensor | None = None  # (B*F, D), of frame rate and guidance scale together
    extra_input: Tensor | None = None  # (B*F, extra channels, H, W); of groups of p frames, (B*F, C, p, H, W)
    left_out: frozenset[nn.Module] = frozenset()  # layers that answer their input in this call, known before it
    picture_tokens: PictureTokens | None = None  # at sites that have other tokens beside the picture's own
    frame_answers: Tensor | None = None  # (B*G*p, N, features): what each frame of a token answers beyond its token
    changes: "dict[str, float] | None" = field(default=None, repr=False)  # when a dict: site -> max |layer(x) - x|

    @contextmanager
    def during_call(
        self,
        num_frames: int,
        fps_embedding: Tensor | None,
        extra_input: Tensor | None,
        left_out: frozenset[nn.Module] = frozenset(),
        picture_tokens: PictureTokens | None = None,
    ) -> Iterator[None]:
        """Switch the temporal layers on inside the block."""
        before = (self.num_frames, self.fps_embedding, self.extra_input, self.left_out, self.picture_tokens)
        self.num_frames, self.fps_embedding, self.extra_input = num_frames, fps_embedding, extra_input
        self.left_out, self.picture_tokens = left_out, picture_tokens
        try:
            yield
        finally:
            self.num_frames, self.fps_embedding, self.extra_input, self.left_out, self.picture_tokens = before
            self.frame_answers = None

    def own_tokens(self, sequence: Tensor, site: Site) -> Tensor:
        """The picture's own tokens, (B*F, N, D), among those at `site`."""
        return self.picture_tokens.of(sequence) if site.with_others and self.picture_tokens else sequence

    def put_tokens(self, sequence: Tensor, site: Site, tokens: Tensor) -> Tensor:
        """`sequence` with other tokens of the picture's own."""
        return self.picture_tokens.put(sequence, tokens) if site.with_others and self.picture_tokens else tokens

    def leaves_out(self, layer: nn.Module) -> bool:
        """Whether `layer` answers its input in this call and is not run; a compiled graph has all layers in it."""
        return bool(self.left_out) and not torch.compiler.is_compiling() and layer in self.left_out

    def note_change(self, name: str, before: Tensor, after: Tensor) -> None:
        """Record how far a temporal layer moved its input, when somebody asked for it."""
        if self.changes is not None:
            change = float((after - before).abs().max())
            self.changes[name] = max(change, self.changes.get(name, 0.0))


# Hooks are plain objects with __call__, not closures: `copy.deepcopy` and pickle follow them into their layer and
# context, so a copied inflated model runs its own copies.


class LayerHook:
    """Runs a temporal layer on the output of the module it hangs on (a convolution or an attention block)."""

    def __init__(self, name: str, layer: nn.Module, context: FrameContext) -> None:
        self.name, self.layer, self.context = name, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The module's output, with the frames of each video mixed by the layer."""
        if self.context.num_frames is None or self.context.leaves_out(self.layer):
            return output
        if hasattr(output, "sample"):
            return type(output)(sample=self._run(output.sample))
        if isinstance(output, tuple):
            return (self._run(output[0]), *output[1:])
        return self._run(output)

    def _run(self, hidden_states: Tensor) -> Tensor:
        result = self.layer(hidden_states, self.context.num_frames)
        self.context.note_change(self.name, hidden_states, result)
        return result


class FrameRateHook:
    """Adds the embedding of frames per second, and of a guidance scale, to the output of `time_embedding`."""

    def __init__(self, context: FrameContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*F, D) plus the frame-rate embedding, when a call gave one."""
        if self.context.num_frames is None or self.context.fps_embedding is None:
            return output
        result = output + self.context.fps_embedding.to(output.dtype)
        self.context.note_change("time_embedding", output, result)
        return result


class ExtraInputHook:
    """Adds the convolution of the extra input channels to the output of `conv_in`: a wider `conv_in` in two parts.

    With `whole` the layer takes all channels and its answer is put in place of `conv_in`'s.
    """

    def __init__(self, layer: nn.Module, context: FrameContext, whole: bool = False) -> None:
        self.layer, self.context, self.whole = layer, context, whole

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*F, C, H, W) plus the convolved extra channels."""
        if self.context.num_frames is None or self.context.extra_input is None:
            return output
        if self.whole:
            result = self.layer(torch.cat([args[0], self.context.extra_input], dim=1))
        else:
            result = output + self.layer(self.context.extra_input)
        self.context.note_change("conv_in (extra channels)", output, result)
        return result


class QueryHook:
    """Adds a trained change to the output of a query projection, from the same input."""

    def __init__(self, name: str, layer: nn.Module, context: FrameContext) -> None:
        self.name, self.layer, self.context = name, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` plus the layer's answer for the module's input."""
        if self.context.num_frames is None:
            return output
        result = output - (0 - self.layer(args[0]))
        self.context.note_change(self.name, output, result)
        return result


class OtherFramesHook:
    """Before a spatial self-attention: its keys and values come from other frames of the video, too or instead.

    Cross-frame attention ("first", Text2Video-Zero, arXiv:2303.13439, eq. 10) and sparse-causal attention
    ("first-and-previous", Tune-A-Video, arXiv:2212.11565, eq. 5). The projections are the image model's own.
    """

    def __init__(self, name: str, frames_seen: FramesSeen, context: FrameContext) -> None:
        self.name, self.frames_seen, self.context = name, frames_seen, context

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The call's arguments with the tokens of other frames as `encoder_hidden_states`."""
        num_frames = self.context.num_frames
        # Of one frame, the first and the previous are itself: the image model's answer, without a copy of each token.
        if num_frames is None or num_frames == 1:
            return None
        tokens = args[0] if args else kwargs["hidden_states"]
        videos = tokens.unflatten(0, (-1, num_frames))
        first = videos[:, :1].expand_as(videos)
        if self.frames_seen == "first":
            seen = first
        else:
            previous = torch.cat([videos[:, :1], videos[:, :-1]], dim=1)
            seen = torch.cat([first, previous], dim=2)
        rest = args[2:] if len(args) > 2 else ()
        return (tokens, seen.flatten(0, 1), *rest), {k: v for k, v in kwargs.items() if k not in _KEY_NAMES}


_KEY_NAMES = ("hidden_states", "encoder_hidden_states")


class FrameCheckpoint:
    """A gradient-checkpointing function that remembers the frame context of the forward pass.

    The recomputation happens in the backward pass, after the call has ended and switched the temporal layers off;
    without this the hooks would pass through there and the gradients would be wrong.
    """

    def __init__(self, inner: Callable[..., Any], context: FrameContext) -> None:
        self.inner, self.context = inner, context

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        """Run `module` under `inner`, both times with the frames of now."""
        context = self.context
        if context.num_frames is None:
            return self.inner(module, *args)
        return self.inner(_InContext(module, context), *_with_gradient(args))


def _with_gradient(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`args`, at least one of which requires a gradient.

    The reentrant kind of checkpointing drops the gradients of a block whose inputs require none; here the layers inside
    train while the image model before them is frozen.
    """
    tensors = [one for one in args if isinstance(one, Tensor) and one.is_floating_point()]
    if not tensors or any(one.requires_grad for one in tensors):
        return args
    first = tensors[0]
    return tuple(one.detach().requires_grad_() if one is first else one for one in args)


class _InContext:
    """A module that runs with the frame context it was built under."""

    def __init__(self, module: nn.Module, context: FrameContext) -> None:
        assert context.num_frames is not None, "only built inside a call"
        self.module, self.context = module, context
        self.values = (context.num_frames, context.fps_embedding, context.extra_input)
        self.picture_tokens = context.picture_tokens

    def __call__(self, *args: Any) -> Any:
        with self.context.during_call(*self.values, picture_tokens=self.picture_tokens):
            return self.module(*args)
