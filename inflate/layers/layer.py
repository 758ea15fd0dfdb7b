"""What a temporal layer brings: how it is built at a place, how it hangs there, and how it is called.

A kind of layer is one class in one file, and then a row in `inflate/schemes/table.py` that says where it goes.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from inflate.errors import nearest
from inflate.layers.frames import FrameContext, Frames
from inflate.layers.place import Place


class Call(NamedTuple):
    """One call of the module that a layer hangs on."""

    frames: Frames
    place: Place
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]  # of the arguments of the module's `forward`

    def arguments(self) -> dict[str, Any]:
        """All by name: gradient checkpointing gives them by position."""
        return {**dict(zip(self.names, self.args, strict=False)), **self.kwargs}


class TemporalLayer(nn.Module):
    """Something temporal that goes to a place in an image model.

    Attributes:
        options: what a scheme may choose, by name, with the usual choice: whole numbers from 1, shares in (0, 1],
            switches, or one of `choices`.
        choices: for some options all that there is.
        suffix: of the layer's name, beside another layer at the same place.
        kind: what the layer's places are called in reports; empty for the first of what the place counts as.
        first: whether the layer is run before others that hang on the same module.
        mixes: whether frames know of each other through it.
        trains: whether it has weights.
        needed: whether a model without a place for it is refused, though other layers of the scheme have theirs.
        own_projections: whether it hangs on query, key and value projections that must not be fused into one.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    suffix: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    first: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    needed: ClassVar[bool] = False
    own_projections: bool = False

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> "TemporalLayer":
        """A new layer for `place`, where `module` stands, perhaps on the meta device.

        `num_frames` are those of a clip in training, and `options` are complete. Its answer is its input until trained.
        By default it is made of the place's channels and the options.
        """
        return cls(place.channels, **options)

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """What it is, for a table of schemes."""
        return cls.__name__

    @classmethod
    def name_at(cls, place: Place) -> str:
        """Its name in `InflatedModel.temporal`, where module names may not contain dots."""
        return (place.layer_name or place.name).replace(".", "-") + cls.suffix

    @classmethod
    def faults(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with values of `options`, in sentences."""
        for name, value in options.items():
            usual, known = cls.options[name], cls.choices.get(name)
            if known is not None and value not in known:
                yield f"unknown {name} {value!r}{nearest(str(value), known)}; known: {', '.join(known)}"
            elif isinstance(usual, bool) and not isinstance(value, bool):
                yield f"{name} must be true or false, got {value!r}"
            elif isinstance(usual, float) and not 0 < value <= 1:
                yield f"{name} must lie in (0, 1], got {value}"
            elif known is None and not isinstance(usual, bool | float) and value is not None and value < 1:
                yield f"{name} must be at least 1, got {value}"

    def hang(self, module: nn.Module, place: Place, context: FrameContext) -> list[Any]:
        """Hang the layer on the module that stands at `place`; the handles to take it off."""
        return [
            module.register_forward_hook(AfterHook(self, module, place, context), prepend=self.first, with_kwargs=True)
        ]

    def after(self, states: Tensor, call: Call) -> Tensor:
        """What takes the place of `states`, the picture's own tensor of what the module answered."""
        return self(states, call.frames.num_frames)


class FrameHook:
    """What hangs on a module of an image model: off outside a call of the video model.

    Hooks are plain objects with ``__call__``, not closures: `copy.deepcopy` and pickle follow them into their layer and
    context, so a copied inflated model runs its own copies.
    """

    def __init__(self, module: nn.Module, place: Place, context: FrameContext) -> None:
        self.place, self.context = place, context
        # Of the module's own `forward`, which accelerate's hooks may have replaced on the module itself.
        self.names = tuple(inspect.signature(type(module).forward).parameters)[1:]


class AfterHook(FrameHook):
    """Runs a temporal layer on what its module answers for the picture; text and other tokens pass by."""

    def __init__(self, layer: TemporalLayer, module: nn.Module, place: Place, context: FrameContext) -> None:
        super().__init__(module, place, context)
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """The module's output, changed by the layer; `rest` is the call's keyword arguments and the output.

        A copy of this hook that torch's quantiser puts on a module of its own is given the output alone.
        """
        frames, output = self.context.now, rest[-1]
        if frames is None or frames.leaves_out(self.layer):
            return output
        call = Call(frames, self.place, module, args, rest[0] if len(rest) > 1 else {}, self.names)
        if isinstance(output, Tensor):
            return self._change(output, call)
        if isinstance(output, tuple):
            answers = list(output)
            answers[self.place.answer] = self._change(answers[self.place.answer], call)
            return tuple(answers)
        return type(output)(sample=self._change(output.sample, call))

    def _change(self, sequence: Tensor, call: Call) -> Tensor:
        tokens = call.frames.picture_tokens if self.place.with_others else None
        states = sequence if tokens is None else tokens.of(sequence)
        result = self.layer.after(states, call)
        self.context.note_change(self.place.name + self.layer.suffix, states, result)
        return result if tokens is None else tokens.put(sequence, result)
