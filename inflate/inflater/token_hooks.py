"""The hooks of transformers: after blocks, around attention over all frames, and at the two ends of spacetime patches.

As all hooks they are plain objects, which `copy.deepcopy` follows into their layer and context, and they are off
outside a call.
"""

import inspect
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from inflate.adapters import Adapter, Site
from inflate.inflater.frames import FrameContext
from inflate.layers import TemporalBlock


class BlockHook:
    """Runs a temporal layer on the picture's tokens that a transformer block answers; all others pass by."""

    def __init__(self, site: Site, module: nn.Module, layer: nn.Module, context: FrameContext) -> None:
        self.site, self.layer, self.context = site, layer, context
        self.names = _argument_names(module)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The block's output, its frames' picture tokens mixed."""
        if self.context.num_frames is None or self.context.leaves_out(self.layer):
            return output
        if not isinstance(output, tuple):
            return self._mix(module, args, kwargs, output)
        answers = list(output)
        answers[self.site.blocks.answer] = self._mix(module, args, kwargs, answers[self.site.blocks.answer])
        return tuple(answers)

    def _mix(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], sequence: Tensor) -> Tensor:
        tokens = self.context.own_tokens(sequence, self.site)
        if isinstance(self.layer, TemporalBlock):
            # Gradient checkpointing gives arguments by position.
            arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
            condition = self.site.blocks.condition
            told = arguments[condition] if isinstance(condition, str) else condition(module, arguments)
            result = self.layer(tokens, self.context.num_frames, told)
        else:
            result = self.layer(tokens, self.context.num_frames)
        self.context.note_change(self.site.name, tokens, result)
        return self.context.put_tokens(sequence, self.site, result)


class GatherFramesHook:
    """Before an attention: the tokens of all frames of a video in one sequence."""

    def __init__(self, module: nn.Module, adapter: Adapter, context: FrameContext) -> None:
        self.adapter, self.context = adapter, context
        self.names = _argument_names(module)

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The call's arguments, all by name, gathered."""
        num_frames = self.context.num_frames
        if num_frames is None or num_frames == 1:
            return None
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        return (), self.adapter.gather_frames(arguments, num_frames)


class ScatterFramesHook:
    """After that attention: each frame's tokens for itself again."""

    def __init__(self, context: FrameContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """`output`, its tensors (B, F*N, D) being (B*F, N, D)."""
        num_frames = self.context.num_frames
        if num_frames is None or num_frames == 1:
            return output
        if isinstance(output, tuple):
            return tuple(rearrange(part, "b (f n) d -> (b f) n d", f=num_frames) for part in output)
        return rearrange(output, "b (f n) d -> (b f) n d", f=num_frames)


class PatchInHook:
    """After the patch embedding: adds to the token of the mean frame what `SpacetimePatchIn` says."""

    def __init__(self, site: Site, layer: nn.Module, context: FrameContext) -> None:
        self.site, self.layer, self.context = site, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*G, N, D) with the frames of each group in it."""
        if self.context.num_frames is None:
            return output
        tokens = self.context.own_tokens(output, self.site)
        result = self.layer(tokens, self.context.num_frames, self.context.extra_input)
        self.context.note_change(self.site.name, tokens, result)
        return self.context.put_tokens(output, self.site, result)


class PatchOutHook:
    """After the last projection: keeps what each frame of a token answers beyond the token's own answer.

    The call puts both together once they are pictures.
    """

    def __init__(self, site: Site, layer: nn.Module, context: FrameContext) -> None:
        self.site, self.layer, self.context = site, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Leave `output` (B*G, N, features) as it is, and the rest, (B*G*p, N, features), in the context."""
        if self.context.num_frames is None:
            return
        answers: Tensor = self.layer(self.context.own_tokens(args[0], self.site))
        self.context.frame_answers = answers
        self.context.note_change(self.site.name, output.new_zeros(()), answers)


def _argument_names(module: nn.Module) -> tuple[str, ...]:
    """Of the module's own `forward`, which accelerate's hooks may have replaced on the module itself."""
    return tuple(inspect.signature(type(module).forward).parameters)[1:]
