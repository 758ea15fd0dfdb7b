"""What a temporal layer brings: how it is built at a place, and what it does to a call of the module there.

A kind of layer is one class in one file, and then a row in `inflate/schemes/table.py` that says where it goes.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from inflate.errors import nearest
from inflate.layers.frames import FrameContext, Frames
from inflate.layers.place import Place
from inflate.layers.positions import POSITIONS

Options = Mapping[str, Any]


class Call(NamedTuple):
    """One call of the module that a layer hangs on."""

    frames: Frames
    place: Place
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]  # of the arguments of the module's `forward`
    context: FrameContext

    def arguments(self) -> dict[str, Any]:
        """All by name: gradient checkpointing gives them by position."""
        return {**dict(zip(self.names, self.args, strict=False)), **self.kwargs}

    def own_tokens(self, sequence: Tensor) -> Tensor:
        """The picture's own tokens, (B*F, N, D), among those here."""
        tokens = self.frames.picture_tokens
        return sequence if tokens is None or not self.place.with_others else tokens.of(sequence)

    def put_tokens(self, sequence: Tensor, own: Tensor) -> Tensor:
        """`sequence` with other tokens of the picture's own."""
        tokens = self.frames.picture_tokens
        return own if tokens is None or not self.place.with_others else tokens.put(sequence, own)


class TemporalLayer(nn.Module):
    """Something temporal that goes to a place in an image model.

    Attributes:
        options: what a scheme may choose, by name, with the usual choice: whole numbers from 1, shares in (0, 1],
            switches, or one of `choices`.
        choices: for some options all that there is.
        words: what the layer is, for a table of schemes; options stand in it in braces.
        suffix: of the layer's name, beside another layer at the same place.
        kind: what the layer's places are called in reports; empty for the first of what the place counts as.
        shown: attributes that ``print(layer)`` shows.
        first: whether the layer is run before others that hang on the same module.
        mixes: whether frames know of each other through it.
        needed: whether a model without a place for it is refused, though other layers of the scheme have theirs.
        own_projections: whether it hangs on query, key and value projections that must not be fused into one.
    """

    options: ClassVar[Options] = {}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"position": POSITIONS}
    words: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    shown: ClassVar[tuple[str, ...]] = ()
    first: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    needed: ClassVar[bool] = False
    own_projections: bool = False

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Options) -> "TemporalLayer":
        """A new layer for `place`, where `module` stands, perhaps on the meta device.

        `num_frames` are those of a clip in training, and `options` are complete. Its answer is its input until trained.
        By default it is made of the place's channels and the options.
        """
        return cls(place.channels, **options)

    @classmethod
    def in_words(cls, options: Options) -> str:
        """`words` with `options` in them: a switch by its name where it is on, a share as narrow where it is one."""
        said = dict(options)
        for name, value in options.items():
            if isinstance(value, bool):
                said[name] = f"{name} " if value else ""
            elif isinstance(value, float):
                said[name] = "narrow " if value < 1 else ""
        return cls.words.format(**said)

    @classmethod
    def name_at(cls, place: Place) -> str:
        """Its name in `InflatedModel.temporal`, where module names may not contain dots."""
        return (place.layer_name or place.name).replace(".", "-") + cls.suffix

    @classmethod
    def faults(cls, options: Options) -> Iterator[str]:
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

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)

    def before(self, call: Call) -> "tuple[tuple[Any, ...], dict[str, Any]] | None":
        """What the module is called with instead, or None for what it is called with."""
        return None

    def answer(self, output: Any, call: Call) -> Any:
        """What takes the place of the module's output: `after` of the picture's own tokens, among all that is in it."""
        if isinstance(output, tuple):
            answers = list(output)
            answers[call.place.answer] = self.answer(answers[call.place.answer], call)
            return tuple(answers)
        if not isinstance(output, Tensor):
            return type(output)(sample=self.answer(output.sample, call))
        states = call.own_tokens(output)
        result = self.after(states, call)
        call.context.note_change(call.place.name + self.suffix, states, result)
        return call.put_tokens(output, result)

    def after(self, states: Tensor, call: Call) -> Tensor:
        """What takes the place of `states`, the picture's own tensor of what the module answered."""
        return self(states, call.frames.num_frames)


class Hook:
    """Runs a layer around the module that it hangs on; off outside a call of the video model.

    A plain object and its methods, not closures: `copy.deepcopy` and pickle follow them into their layer and context,
    so a copied inflated model runs its own copies.
    """

    def __init__(self, layer: TemporalLayer, module: nn.Module, place: Place, context: FrameContext) -> None:
        self.layer, self.place, self.context = layer, place, context
        # Of the module's own `forward`, which accelerate's hooks may have replaced on the module itself.
        self.names = tuple(inspect.signature(type(module).forward).parameters)[1:]

    def hang(self, module: nn.Module) -> list[Any]:
        """Hang on `module`; the handles to take it off."""
        handles = [module.register_forward_hook(self.after, prepend=self.layer.first, with_kwargs=True)]
        if type(self.layer).before is not TemporalLayer.before:
            handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True))
        return handles

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call's arguments as the layer has them."""
        frames = self.context.now
        return None if frames is None else self.layer.before(self._call(frames, module, args, kwargs))

    def after(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """The module's output, changed by the layer; `rest` is the call's keyword arguments and the output.

        A copy of this hook that torch's quantiser puts on a module of its own is given the output alone.
        """
        frames, output = self.context.now, rest[-1]
        if frames is None or frames.leaves_out(self.layer):
            return output
        return self.layer.answer(output, self._call(frames, module, args, rest[0] if len(rest) > 1 else {}))

    def _call(self, frames: Frames, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return Call(frames, self.place, module, args, kwargs, self.names, self.context)
