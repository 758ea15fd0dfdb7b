"""Patches that cover several frames: the two ends of a transformer over spacetime tokens.

Sora (openai.com/index/video-generation-models-as-world-simulators) makes tokens of spacetime patches. An image model's
patch embedding becomes one for p frames when its kernel is copied over them and divided by p: at first a token is that
of their mean, and every frame is answered alike. Both layers hold the changes to that start, which begin at zero; the
image model's own projections make the rest.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from einops import rearrange
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.frames import FrameContext
from inflate.layers.layer import Call, FrameHook, TemporalLayer
from inflate.layers.place import Place, plain_module
from inflate.layers.positions import POSITIONS, sinusoidal_positions
from inflate.layers.starting import zero_


class SpacetimePatchIn(TemporalLayer):
    """What a spacetime token has beyond the token of its mean frame: each frame by itself, and its place in time.

    ``change`` is the change of the inflated kernel, ``(D, C, p, P, P)``, without bias; None for one frame per token.
    ``position`` projects the sines and cosines of the token's place in time, ``(D, D)``; None if ``positions`` is
    False. Both start at zero.
    """

    options: ClassVar[Mapping[str, Any]] = {"patch_frames": 1, "position": "none"}
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"position": POSITIONS}

    def __init__(self, dim: int, in_channels: int, patch_size: int, patch_frames: int, positions: bool = True) -> None:
        super().__init__()
        self.dim = dim
        kernel = (patch_frames, patch_size, patch_size)
        self.change = nn.Conv3d(in_channels, dim, kernel, stride=kernel, bias=False) if patch_frames > 1 else None
        self.position = nn.Linear(dim, dim, bias=False) if positions else None
        self.reset_parameters()

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """Beside the kernel of the image model; `InputError` for positions that tokens have not."""
        position = options["position"]
        if position not in ("sinusoidal", "none"):
            raise InputError(
                "tokens that see all frames have sinusoidal positions or none; set position to one of them, "
                f"got {position!r}"
            )
        sizes = (place.channels, place.in_channels, place.patch_size, options["patch_frames"])
        return cls(*sizes, positions=position == "sinusoidal")

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        frames = options["patch_frames"]
        return f"patches of {frames} frames" if frames > 1 else "places in time"

    def reset_parameters(self) -> None:
        """Make the layer the identity."""
        zero_(*(layer for layer in (self.change, self.position) if layer is not None))

    def after(self, states: Tensor, call: Call) -> Tensor:
        """The tokens with the frames of each group in them."""
        return self(states, call.frames.num_frames, call.frames.extra_input)

    def forward(self, tokens: Tensor, num_groups: int, frames: Tensor | None) -> Tensor:
        """Tokens of the mean frames, ``(B * G, N, D)`` with the G groups of a video next to each other, to the same.

        ``frames`` is ``(B * G, C, p, H, W)``; it may be None for one frame per token.
        """
        if self.change is not None:
            assert frames is not None, "a token of several frames needs all of them"
            tokens = tokens - (0 - self.change(frames).flatten(2).transpose(1, 2)).to(tokens.dtype)
        if self.position is not None:
            places = sinusoidal_positions(num_groups, self.dim, tokens.device).to(self.position.weight.dtype)
            change = self.position(places)[:, None]
            tokens = (tokens.unflatten(0, (-1, num_groups)) - (0 - change)).flatten(0, 1)
        return tokens


class SpacetimePatchOut(TemporalLayer):
    """What the last projection, inflated, answers for each of a token's p frames beyond the token's own answer.

    ``change`` maps the token, ``(D,)``, to it, ``(p * out_features,)``, and starts at zero.
    """

    options: ClassVar[Mapping[str, Any]] = {"patch_frames": 2}

    def __init__(self, dim: int, out_features: int, patch_frames: int) -> None:
        super().__init__()
        self.patch_frames = patch_frames
        self.change = nn.Linear(dim, patch_frames * out_features)
        self.reset_parameters()

    @classmethod
    def at(cls, place: Place, module: nn.Module, num_frames: int, options: Mapping[str, Any]) -> TemporalLayer:
        """Beside the last projection."""
        last = plain_module(module)
        assert isinstance(last, nn.Linear), "every supported transformer ends with a Linear"
        return cls(place.channels, last.out_features, options["patch_frames"])

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """With `SpacetimePatchIn`'s."""
        return ""

    def reset_parameters(self) -> None:
        """Let every frame be answered alike."""
        zero_(self.change)

    def hang(self, module: nn.Module, place: Place, context: FrameContext) -> list[Any]:
        """See `TemporalLayer`."""
        return [module.register_forward_hook(_AnswerHook(self, module, place, context))]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B * G, N, D)`` to ``(B * G * p, N, out_features)``."""
        return rearrange(self.change(tokens), "g n (p c) -> (g p) n c", p=self.patch_frames)


class _AnswerHook(FrameHook):
    """Keeps what each frame of a token answers beyond the token's own answer, until both are pictures."""

    def __init__(self, layer: SpacetimePatchOut, module: nn.Module, place: Place, context: FrameContext) -> None:
        super().__init__(module, place, context)
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Leave `output` (B*G, N, features) as it is."""
        frames = self.context.now
        if frames is not None:
            tokens = frames.picture_tokens if self.place.with_others else None
            answers: Tensor = self.layer(args[0] if tokens is None else tokens.of(args[0]))
            frames.answers = answers
            self.context.note_change(self.place.name, output.new_zeros(()), answers)
