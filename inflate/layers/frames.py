"""What the temporal layers of a model must know during one of its calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PictureTokens:
    """Which tokens of a sequence are the picture's own, where text, registers or padding are in it too."""

    num_pictures: int
    where: slice | Tensor  # of every sequence alike, or (pictures, tokens) with the places in each

    def of(self, sequence: Tensor) -> Tensor:
        """(pictures, n, D), or those in one long row, (pictures * n, D), to (pictures, N, D)."""
        by_picture = self._by_picture(sequence)
        return (
            by_picture[:, self.where] if isinstance(self.where, slice) else by_picture.gather(1, self._index(sequence))
        )

    def put(self, sequence: Tensor, tokens: Tensor) -> Tensor:
        """A copy of `sequence` with `tokens` in their places."""
        by_picture = self._by_picture(sequence).clone()
        if isinstance(self.where, slice):
            by_picture[:, self.where] = tokens
        else:
            by_picture = by_picture.scatter(1, self._index(sequence), tokens)
        return by_picture.view_as(sequence)

    def _by_picture(self, sequence: Tensor) -> Tensor:
        return sequence if sequence.ndim == 3 else sequence.unflatten(0, (self.num_pictures, -1))

    def _index(self, sequence: Tensor) -> Tensor:
        assert isinstance(self.where, Tensor), "asked only where each sequence has its own places"
        return self.where[..., None].expand(-1, -1, sequence.shape[-1])


@dataclass
class Frames:
    """One call of a video model, as its layers see it."""

    num_frames: int  # of a video in the image model: groups of frames, where a token covers several
    embedding: Tensor | None = None  # (B*F, D), of frame rate and guidance scale together
    extra_input: Tensor | None = None  # (B*F, extra channels, H, W); of groups of p frames, (B*F, C, p, H, W)
    left_out: frozenset[nn.Module] = frozenset()  # layers that answer their input in this call, known before it
    picture_tokens: PictureTokens | None = None  # at places that have other tokens beside the picture's own
    answers: Tensor | None = None  # (B*G*p, N, features): what each frame of a token answers beyond its token

    def leaves_out(self, layer: nn.Module) -> bool:
        """Whether `layer` is not run; a compiled graph has all layers in it."""
        return bool(self.left_out) and not torch.compiler.is_compiling() and layer in self.left_out


@dataclass
class FrameContext:
    """Shared by all hooks of one inflated model; empty outside a call of it, so the image model answers as before.

    One call at a time: two threads must not call one inflated model at once.
    """

    now: Frames | None = None
    changes: "dict[str, float] | None" = field(default=None, repr=False)  # when a dict: place -> max |layer(x) - x|

    @contextmanager
    def during(self, frames: Frames) -> Iterator[None]:
        """Switch the temporal layers on inside the block."""
        before, self.now = self.now, frames
        try:
            yield
        finally:
            self.now = before

    def note_change(self, name: str, before: Tensor, after: Tensor) -> None:
        """Record how far a temporal layer moved its input, when somebody asked for it."""
        if self.changes is not None:
            change = float((after - before).abs().max())
            self.changes[name] = max(change, self.changes.get(name, 0.0))


class FrameCheckpoint:
    """A gradient-checkpointing function that remembers the frames of the forward pass.

    The recomputation happens in the backward pass, after the call has ended and switched the temporal layers off;
    without this the hooks would pass through there and the gradients would be wrong.
    """

    def __init__(self, inner: Callable[..., Any], context: FrameContext) -> None:
        self.inner, self.context = inner, context

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        """Run `module` under `inner`, both times with the frames of now."""
        if self.context.now is None:
            return self.inner(module, *args)
        return self.inner(_During(self.context, self.context.now, module), *_with_gradient(args))


@dataclass
class _During:
    """A module that runs with the frames it was built under."""

    context: FrameContext
    frames: Frames
    module: nn.Module

    def __call__(self, *args: Any) -> Any:
        with self.context.during(self.frames):
            return self.module(*args)


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
