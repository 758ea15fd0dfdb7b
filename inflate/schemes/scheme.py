"""What a scheme is: which temporal layer goes where, and what the video model is told beside."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inflate.errors import InputError, nearest
from inflate.layers import ExtraInput, FrameRateEmbedding, GuidanceEmbedding, TemporalLayer, Where
from inflate.schemes.fields import USUAL_FIELDS, fields_of, layers_of
from inflate.schemes.placed import Placed


@dataclass(frozen=True)
class Numbers:
    """Numbers of a whole video that are embedded beside the time step, and their ranges in training; None for none."""

    fps_range: tuple[float, float] | None = None  # frames per second
    guidance_range: tuple[float, float] | None = None  # guidance scales distilled into the weights

    def __post_init__(self) -> None:
        if self.guidance_range is not None and not 0 <= self.guidance_range[0] <= self.guidance_range[1]:
            raise InputError(f"guidance_range must be two scales, the lower one first, got {self.guidance_range}")

    def layers(self) -> tuple[Placed, ...]:
        """Their embeddings."""
        rate = () if self.fps_range is None else (Placed("time_embedding", FrameRateEmbedding),)
        alone = {"alone": not rate}
        guidance = () if self.guidance_range is None else (Placed("time_embedding", GuidanceEmbedding, alone),)
        return (*rate, *guidance)


@dataclass(frozen=True)
class SharedNoise:
    """How much of their noise the frames of a video share, in training and sampling (`mix_noise`)."""

    share: float = 0.0  # correlation of two frames' noise; 0 = independent
    time: float = 0.0  # seconds over which that correlation falls by e, in place of one for all frame rates

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InputError(f"shared_noise must lie between 0 and 1, got {self.share}")
        if not 0 <= self.time < math.inf:
            raise InputError(f"noise_time must be 0 or some seconds, got {self.time}")

    def at(self, fps: float | None) -> float:
        """Correlation of two frames' noise: ``exp(-1 / (fps * time))``, or ``share`` without either.

        Frames further apart in time share less, as their pictures do, so that the noise alone tells the frame rate.
        """
        return math.exp(-1 / (fps * self.time)) if self.time and fps is not None else self.share


@dataclass(frozen=True)
class Scheme:
    """One way of turning an image model into a video model.

    A user's own scheme is one more row: build a `Scheme`, or change one with `changed`.
    """

    name: str
    source: str
    layers: tuple[Placed, ...]
    numbers: Numbers = Numbers()
    noise: SharedNoise = SharedNoise()

    def __post_init__(self) -> None:
        if all(one.layer is ExtraInput for one in self.layers):
            raise InputError(f"scheme {self.name!r} adds no temporal layer: set convolution or attention")
        for one in self.layers:
            for fault in one.layer.faults(one.options):
                raise InputError(f"scheme {self.name!r}: {fault}")

    def all_layers(self) -> tuple[Placed, ...]:
        """Those of its numbers too."""
        return (*self.layers, *self.numbers.layers())

    def has(self, layer: type[TemporalLayer], where: Where | None = None) -> bool:
        """Whether it puts a kind of layer somewhere, or at one kind of place."""
        return any(one.layer is layer and where in (None, one.where) for one in self.layers)

    def field(self, name: str) -> Any:
        """What `to_json` says of it under a name, such as ``motion_heads``; the usual where no layer has that."""
        return self._fields[name]

    @cached_property
    def _fields(self) -> dict[str, Any]:
        numbers = {"fps_range": self.numbers.fps_range, "guidance_range": self.numbers.guidance_range}
        noise = {"shared_noise": self.noise.share, "noise_time": self.noise.time}
        return {"name": self.name, "source": self.source, **fields_of(self.layers), **numbers, **noise}

    @property
    def fps_range(self) -> tuple[float, float] | None:
        """Frames per second seen in training; None = no frame-rate embedding."""
        return self.numbers.fps_range

    @property
    def guidance_range(self) -> tuple[float, float] | None:
        """Guidance scales distilled into the weights, as an input."""
        return self.numbers.guidance_range

    @property
    def shared_noise(self) -> float:
        """Correlation of two frames' noise where no frame rate is known."""
        return self.noise.share

    @property
    def extra_in_channels(self) -> int:
        """Channels of the video sample beyond the image model's own."""
        return self.field("extra_in_channels")

    @property
    def patch_frames(self) -> int:
        """Frames that one token covers."""
        return self.field("patch_frames")

    @property
    def frames_seen(self) -> str:
        """Frames whose tokens spatial self-attention sees; "own" for those of its frame."""
        return self.field("frames_seen")

    @property
    def position(self) -> str:
        """How temporal layers know which frame is which."""
        return self.field("position")

    @property
    def max_frames(self) -> int | None:
        """Positions that there are; None: as many frames as one likes."""
        return self.field("max_frames")

    @property
    def starts_as_image_model(self) -> bool:
        """Whether a new video model gives for any frames what the image model gives for each, bit for bit.

        False where spatial attention sees other frames, or one token covers several. Then the property is static
        equivalence: equal frames give the image model's answer each, up to rounding.
        """
        return self.frames_seen == "own" and self.patch_frames == 1

    def adds(self) -> str:
        """What the scheme adds to an image model, in words."""
        words = [*map(str, self.all_layers()), "a learned blend with the image model" if self.field("merge") else ""]
        return ", ".join(filter(None, words))

    def noise_share(self, fps: float | None) -> float:
        """Correlation of two frames' noise at a frame rate: see `SharedNoise`."""
        return self.noise.at(fps)

    def changed(self, **fields: Any) -> "Scheme":
        """The scheme with other values of fields, by their names in temporal files (`to_json`), its name among them.

        Raises:
            InputError: an unknown field, a wrong value, or one that none of the scheme's layers would have.
        """
        before = self._fields
        for name in fields:
            if name not in before:
                raise InputError(f"a scheme has no field {name!r}{nearest(name, tuple(before))}")
        layers = before["layers"] and [
            (where, layer, {name: fields.get(name, value) for name, value in options.items()})
            for where, layer, options in before["layers"]
        ]
        scheme = _scheme_of({**before, "layers": layers, **fields})
        for name, value in fields.items():
            if scheme.field(name) != value:
                raise InputError(f"scheme {self.name!r} has no layer for {name} = {value!r}")
        return scheme

    def to_json(self) -> str:
        """Its fields as a JSON object, for the header of a temporal file; most only where they say something."""
        said = {name: value for name, value in self._fields.items() if name in _ALWAYS or value != _USUAL[name]}
        return json.dumps(said, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Scheme":
        """The scheme written by `to_json`; `InputError` when a field is missing or unknown."""
        try:
            values = json.loads(text)
            if not (isinstance(values, dict) and _ALWAYS <= set(values) <= {*_ALWAYS, *_USUAL}):
                raise ValueError("fields differ")
            return _scheme_of({**_USUAL, **values})
        except InputError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"the temporal file describes its scheme in fields this version does not know ({error}); "
                "it was probably written by another version of inflate"
            ) from error


# Fields that are always in a file, and what others are where a file has them not.
_ALWAYS = {"name", "source", "convolution", "attention", "kernel_size", "position", "fps_range", "extra_in_channels"}
_USUAL = {**USUAL_FIELDS, "fps_range": None, "guidance_range": None, "shared_noise": 0.0, "noise_time": 0.0}


def _scheme_of(fields: Mapping[str, Any]) -> Scheme:
    rates, scales = (
        None if fields[name] is None else (float(fields[name][0]), float(fields[name][1]))
        for name in ("fps_range", "guidance_range")
    )
    noise = SharedNoise(fields["shared_noise"], fields["noise_time"])
    return Scheme(fields["name"], fields["source"], layers_of(fields), Numbers(rates, scales), noise)
