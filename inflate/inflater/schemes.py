"""The table of schemes: which temporal layer goes where, as data (one row each, no subclasses)."""

import json
import math
from dataclasses import asdict, dataclass, fields

from inflate.errors import InputError, nearest
from inflate.layers import POSITIONS, Position


@dataclass(frozen=True)
class Scheme:
    """One way of turning an image model into a video model.

    A user's own scheme is one more row: build a `Scheme`, or change a field of a row with `dataclasses.replace`.
    """

    name: str
    source: str
    convolution: bool  # a temporal convolution after every spatial convolution
    attention: bool  # a temporal attention after every spatial attention block
    kernel_size: int  # frames seen by one temporal convolution
    position: Position  # how temporal attention knows which frame is which
    fps_range: tuple[float, float] | None  # frames per second seen in training; None = no frame-rate embedding
    extra_in_channels: int  # channels of the video sample beyond the image model's own
    shared_noise: float = 0.0  # correlation of two frames' noise, in training and sampling (mix_noise); 0 = independent
    noise_time: float = 0.0  # seconds over which that correlation falls by e, in place of one for all frame rates

    def __post_init__(self) -> None:
        if not (self.convolution or self.attention):
            raise InputError(f"scheme {self.name!r} adds no temporal layer: set convolution or attention")
        if self.position not in POSITIONS:
            hint = nearest(self.position, POSITIONS)
            raise InputError(
                f"scheme {self.name!r}: unknown position {self.position!r}{hint}; known: {', '.join(POSITIONS)}"
            )
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"scheme {self.name!r}: kernel_size must be odd and positive, got {self.kernel_size}")
        if self.extra_in_channels < 0:
            raise InputError(f"scheme {self.name!r}: extra_in_channels must not be negative")
        if not 0 <= self.shared_noise <= 1:
            raise InputError(f"scheme {self.name!r}: shared_noise must lie between 0 and 1, got {self.shared_noise}")
        if not 0 <= self.noise_time < math.inf:
            raise InputError(f"scheme {self.name!r}: noise_time must be 0 or some seconds, got {self.noise_time}")

    def noise_share(self, fps: float | None) -> float:
        """Correlation of two frames' noise: ``exp(-1 / (fps * noise_time))``, or ``shared_noise`` without either.

        Frames further apart in time share less, as their pictures do, so that the noise alone tells the frame rate.
        """
        if not self.noise_time or fps is None:
            return self.shared_noise
        return math.exp(-1 / (fps * self.noise_time))

    def to_json(self) -> str:
        """All fields as a JSON object, for the header of a temporal file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Scheme":
        """The scheme written by `to_json`; `InputError` when a field is missing or unknown."""
        known = {field.name for field in fields(cls)}
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or set(values) | _LATER_FIELDS != known:
                raise ValueError("fields differ")
            if values["fps_range"] is not None:
                low, high = values["fps_range"]
                values["fps_range"] = (float(low), float(high))
            return cls(**values)
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the temporal file describes its scheme in fields this version does not know ({error}); "
                "it was probably written by another version of inflate"
            ) from error


# Files written before a field was there have its default.
_LATER_FIELDS = {"shared_noise", "noise_time"}

_ROWS = (
    # name, source, conv, attn, kernel, position, fps_range, extra_in_channels
    Scheme("make-a-video", "arXiv 2209.14792, sec. 3.2", True, True, 3, "relative", (1.0, 30.0), 0),
    Scheme("vdm", "arXiv 2204.03458, sec. 3", False, True, 3, "relative", None, 0),
    Scheme("imagen-video-sr", "arXiv 2210.02303, sec. 2.3 (SSR and TSR)", True, False, 3, "none", None, 0),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}


def resolve_scheme(scheme: str | Scheme) -> Scheme:
    """The row named `scheme`, or `scheme` itself; `InputError` with the nearest name when there is none."""
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        names = tuple(SCHEMES)
        raise InputError(f"unknown scheme {scheme!r}{nearest(scheme, names)}; known: {', '.join(names)}")
    return SCHEMES[scheme]
