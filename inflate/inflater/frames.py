"""What the temporal layers must know during one call, and the hooks that run them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class FrameContext:
    """Shared by all hooks of one inflated model; empty outside a call of it, so the image model answers as before.

    One call at a time: two threads must not call one inflated model at once.
    """

    num_frames: int | None = None
    fps_embedding: Tensor | None = None  # (B*F, D)
    extra_input: Tensor | None = None  # (B*F, extra channels, H, W)
    changes: "dict[str, float] | None" = field(default=None, repr=False)  # when a dict: site -> max |layer(x) - x|

    @contextmanager
    def during_call(self, num_frames: int, fps_embedding: Tensor | None, extra_input: Tensor | None) -> Iterator[None]:
        """Switch the temporal layers on inside the block."""
        before = (self.num_frames, self.fps_embedding, self.extra_input)
        self.num_frames, self.fps_embedding, self.extra_input = num_frames, fps_embedding, extra_input
        try:
            yield
        finally:
            self.num_frames, self.fps_embedding, self.extra_input = before

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
        if self.context.num_frames is None:
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
    """Adds the embedding of frames per second to the output of `time_embedding`."""

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
    """Adds the convolution of the extra input channels to the output of `conv_in`: a wider `conv_in` in two parts."""

    def __init__(self, layer: nn.Module, context: FrameContext) -> None:
        self.layer, self.context = layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*F, C, H, W) plus the convolved extra channels."""
        if self.context.num_frames is None or self.context.extra_input is None:
            return output
        result = output + self.layer(self.context.extra_input)
        self.context.note_change("conv_in (extra channels)", output, result)
        return result


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
        return self.inner(_InContext(module, context), *args)


class _InContext:
    """A module that runs with the frame context it was built under."""

    def __init__(self, module: nn.Module, context: FrameContext) -> None:
        assert context.num_frames is not None, "only built inside a call"
        self.module, self.context = module, context
        self.values = (context.num_frames, context.fps_embedding, context.extra_input)

    def __call__(self, *args: Any) -> Any:
        with self.context.during_call(*self.values):
            return self.module(*args)
