"""The hooks of transformers: after blocks, around attention over all frames, and at the two ends of spacetime patches.

As all hooks they are plain objects, which `copy.deepcopy` follows into their layer and context, and they are off
outside a call.
"""

from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.inflater.frames import FrameContext
from inflate.layers import TemporalBlock


class BlockHook:
    """Runs a temporal layer on the image tokens that a transformer block answers."""

    def __init__(self, name: str, layer: nn.Module, context: FrameContext) -> None:
        self.name, self.layer, self.context = name, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The block's output, its frames' image tokens mixed; those of the text, which come first, stay."""
        if self.context.num_frames is None or self.context.leaves_out(self.layer):
            return output
        tokens = output[-1] if isinstance(output, tuple) else output
        if isinstance(self.layer, TemporalBlock):
            condition = _condition_of(module, args, kwargs, tokens.dtype)
            result = self.layer(tokens, self.context.num_frames, condition)
        else:
            result = self.layer(tokens, self.context.num_frames)
        self.context.note_change(self.name, tokens, result)
        return (*output[:-1], result) if isinstance(output, tuple) else result


def _condition_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype) -> Tensor:
    """What the block was modulated by; gradient checkpointing gives arguments by position.

    It is embedded in DiT's blocks: asked once more, since the answer is not among the block's outputs.
    """
    if not isinstance(block, BasicTransformerBlock):
        return kwargs["temb"] if "temb" in kwargs else args[2]
    timestep = kwargs["timestep"] if "timestep" in kwargs else args[4]
    if block.norm_type == "ada_norm_single":
        return timestep
    labels = kwargs["class_labels"] if "class_labels" in kwargs else args[6]
    embedding = block.get_submodule("norm1.emb")
    return embedding(timestep, labels, hidden_dtype=dtype)


_ATTENTION_ARGUMENTS = ("hidden_states", "encoder_hidden_states", "attention_mask", "image_rotary_emb")


class GatherFramesHook:
    """Before an attention: the tokens of all frames of a video in one sequence.

    In joint attention each frame brings its own copy of the text, so that the text keeps its share of the tokens; with
    equal frames every token then sees what it saw in one.
    """

    def __init__(self, context: FrameContext) -> None:
        self.context = context

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The call's arguments, all by name, (B*F, N, D) being (B, F*N, D)."""
        num_frames = self.context.num_frames
        if num_frames is None or num_frames == 1:
            return None
        arguments = {**dict(zip(_ATTENTION_ARGUMENTS[: len(args)], args, strict=True)), **kwargs}
        text = arguments.get("encoder_hidden_states")
        for name in ("hidden_states", "encoder_hidden_states"):
            if arguments.get(name) is not None:
                arguments[name] = rearrange(arguments[name], "(b f) n d -> b (f n) d", f=num_frames)
        if arguments.get("attention_mask") is not None:
            arguments["attention_mask"] = _mask_of_all(arguments["attention_mask"], num_frames)
        if arguments.get("image_rotary_emb") is not None:
            num_text = 0 if text is None else text.shape[1]
            # one table for all frames, text before picture; single blocks have them in one sequence already
            arguments["image_rotary_emb"] = tuple(
                torch.cat([table[:num_text].repeat(num_frames, 1), table[num_text:].repeat(num_frames, 1)])
                for table in arguments["image_rotary_emb"]
            )
        return (), arguments


def _mask_of_all(mask: Tensor, num_frames: int) -> Tensor:
    if mask.ndim != 3 or mask.shape[1] != 1:
        raise InputError(
            "attention over all frames takes an attention mask of keys only, shape (frames, 1, tokens), "
            f"got {tuple(mask.shape)}"
        )
    return rearrange(mask, "(b f) 1 n -> b 1 (f n)", f=num_frames)


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

    def __init__(self, name: str, layer: nn.Module, context: FrameContext) -> None:
        self.name, self.layer, self.context = name, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*G, N, D) with the frames of each group in it."""
        if self.context.num_frames is None:
            return output
        result = self.layer(output, self.context.num_frames, self.context.extra_input)
        self.context.note_change(self.name, output, result)
        return result


class PatchOutHook:
    """After the last projection: the answer for every frame of a token, so that the batch grows from groups to frames.

    What comes after it in an image transformer only turns tokens into pictures.
    """

    def __init__(self, name: str, layer: nn.Module, context: FrameContext) -> None:
        self.name, self.layer, self.context = name, layer, context

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """`output` (B*G, N, features) to (B*G*p, N, features)."""
        if self.context.num_frames is None:
            return output
        result = self.layer(args[0], output)
        if self.context.changes is not None:
            alike = output.repeat_interleave(result.shape[0] // output.shape[0], dim=0)
            self.context.note_change(self.name, alike, result)
        return result
