"""The table of schemes: which temporal layer goes where, as data (one row each, no subclasses)."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Literal, get_args

from inflate.errors import InputError, nearest
from inflate.layers import POSITIONS, Position

FramesSeen = Literal["own", "first", "first-and-previous", "all"]
FRAMES_SEEN: tuple[FramesSeen, ...] = get_args(FramesSeen)
# Fields that add something; a scheme needs one of them.
_ADDING = (
    "convolution",
    "attention",
    "motion_modules",
    "residual_blocks",
    "token_attention",
    "temporal_blocks",
    "feed_forward_convolution",
)


@dataclass(frozen=True)
class Scheme:
    """One way of turning an image model into a video model.

    A user's own scheme is one more row: build a `Scheme`, or change a field of a row with `dataclasses.replace`.
    """

    name: str
    source: str
    convolution: bool  # a temporal convolution after spatial convolutions
    attention: bool  # a temporal attention after every spatial attention block
    kernel_size: int  # frames seen by one temporal convolution
    position: Position  # how temporal attention knows which frame is which
    fps_range: tuple[float, float] | None  # frames per second seen in training; None = no frame-rate embedding
    extra_in_channels: int  # channels of the video sample beyond the image model's own
    own_conv_in: bool = False  # those come in through a first convolution of its own, in place of the image model's
    shared_noise: float = 0.0  # correlation of two frames' noise, in training and sampling (mix_noise); 0 = independent
    noise_time: float = 0.0  # seconds over which that correlation falls by e, in place of one for all frame rates
    depthwise: bool = False  # temporal convolutions mix the frames of each channel by itself
    every_convolution: bool = True  # False: only after the last convolution of each residual block
    attention_width: float = 1.0  # heads of temporal attention over those of the spatial attention
    motion_modules: bool = False  # AnimateDiff's temporal transformer after every layer of the down and up blocks
    mid_motion_module: bool = False  # ... and one in the mid block
    motion_heads: int = 8  # heads of its attentions (fewer where they do not divide the channels)
    motion_layers: int = 1  # its transformer blocks
    norm_num_groups: int = 32  # groups of temporal group norms (fewer where they do not divide the channels)
    norm_over_video: bool = True  # whether those norms take all frames of a video together or each alone
    max_frames: int | None = None  # positions that there are; None: as many frames as one likes
    residual_blocks: bool = False  # a temporal residual block after every spatial one
    merge: bool = False  # temporal layers start as any network does, and a learned blend starts at the image alone
    token_attention: bool = False  # a temporal attention at the end of every transformer block
    queries: bool = False  # trained changes to the query projections of the spatial attentions
    frames_seen: FramesSeen = "own"  # frames whose tokens spatial self-attention sees, with its spatial weights
    temporal_blocks: bool = False  # a temporal transformer block after every spatial one (transformers)
    patch_frames: int = 1  # frames that one token covers (transformers)
    feed_forward_convolution: bool = (
        False  # a temporal convolution after the depthwise one of every feed-forward (SANA)
    )
    guidance_range: tuple[float, float] | None = None  # guidance scales distilled into the weights, as an input

    def __post_init__(self) -> None:
        for field, known in (("position", POSITIONS), ("frames_seen", FRAMES_SEEN)):
            value = getattr(self, field)
            if value not in known:
                raise InputError(
                    f"scheme {self.name!r}: unknown {field} {value!r}{nearest(value, known)}; known: {', '.join(known)}"
                )
        rules = (
            (self.trains or self.frames_seen != "own", "adds no temporal layer: set convolution or attention"),
            (
                self.kernel_size > 0 and self.kernel_size % 2,
                f"kernel_size must be odd and positive, got {self.kernel_size}",
            ),
            (self.extra_in_channels >= 0, "extra_in_channels must not be negative"),
            (self.extra_in_channels or not self.own_conv_in, "own_conv_in needs extra_in_channels"),
            (0 <= self.shared_noise <= 1, f"shared_noise must lie between 0 and 1, got {self.shared_noise}"),
            (0 <= self.noise_time < math.inf, f"noise_time must be 0 or some seconds, got {self.noise_time}"),
            (
                self.guidance_range is None or 0 <= self.guidance_range[0] <= self.guidance_range[1],
                f"guidance_range must be two scales, the lower one first, got {self.guidance_range}",
            ),
            (0 < self.attention_width <= 1, f"attention_width must lie in (0, 1], got {self.attention_width}"),
            *(
                (getattr(self, field) >= 1, f"{field} must be at least 1, got {getattr(self, field)}")
                for field in ("motion_heads", "motion_layers", "norm_num_groups", "patch_frames")
            ),
        )
        for holds, sentence in rules:
            if not holds:
                separator = " " if sentence.startswith("adds") else ": "
                raise InputError(f"scheme {self.name!r}{separator}{sentence}")

    @property
    def starts_as_image_model(self) -> bool:
        """Whether a new video model gives for any frames what the image model gives for each, bit for bit.

        False where spatial attention sees other frames, or one token covers several. Then the property is static
        equivalence: equal frames give the image model's answer each, up to rounding.
        """
        return self.frames_seen == "own" and self.patch_frames == 1

    @property
    def embeds_numbers(self) -> bool:
        """Whether numbers of a whole video (frame rate, guidance scale) are added to the time embedding."""
        return self.fps_range is not None or self.guidance_range is not None

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return any(getattr(self, field) for field in (*_ADDING, "queries")) or self.patch_frames > 1

    def adds(self) -> str:
        """What the scheme adds to an image model, in words."""
        depthwise = "depthwise " if self.depthwise else ""
        where = "every convolution" if self.every_convolution else "each residual block"
        narrow = "narrow " if self.attention_width < 1 else ""
        parts = (
            (self.convolution, f"{depthwise}convolution over {self.kernel_size} frames after {where}"),
            (
                self.feed_forward_convolution,
                f"{depthwise}convolution over {self.kernel_size} frames in each feed-forward",
            ),
            (self.attention, f"{narrow}attention over frames after each spatial attention"),
            (self.motion_modules, "a temporal transformer after each layer of a block"),
            (self.mid_motion_module, "and in the mid block"),
            (self.residual_blocks, "a temporal residual block after each spatial one"),
            (self.token_attention, "attention over frames in each transformer block"),
            (self.queries, "changes to spatial queries"),
            (self.temporal_blocks, "a temporal transformer block after each spatial one"),
            (self.frames_seen == "first", "spatial attention looks at the first frame"),
            (self.frames_seen == "first-and-previous", "spatial attention looks at the first and the previous frame"),
            (self.frames_seen == "all", "spatial attention looks at all frames"),
            (self.patch_frames > 1, f"patches of {self.patch_frames} frames"),
            (self.merge, "a learned blend with the image model"),
            (self.fps_range is not None, "frame-rate embedding"),
            (self.guidance_range is not None, "guidance-scale embedding"),
        )
        return ", ".join(words for holds, words in parts if holds)

    def noise_share(self, fps: float | None) -> float:
        """Correlation of two frames' noise: ``exp(-1 / (fps * noise_time))``, or ``shared_noise`` without either.

        Frames further apart in time share less, as their pictures do, so that the noise alone tells the frame rate.
        """
        if not self.noise_time or fps is None:
            return self.shared_noise
        return math.exp(-1 / (fps * self.noise_time))

    def to_json(self) -> str:
        """The fields as a JSON object, for the header of a temporal file; later ones only where they say something."""
        values = asdict(self)
        return json.dumps(
            {key: value for key, value in values.items() if value != _DEFAULTS.get(key, _NOTHING)}, sort_keys=True
        )

    @classmethod
    def from_json(cls, text: str) -> "Scheme":
        """The scheme written by `to_json`; `InputError` when a field is missing or unknown."""
        known = {field.name for field in fields(cls)}
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or set(values) | set(_DEFAULTS) != known:
                raise ValueError("fields differ")
            for name in ("fps_range", "guidance_range"):
                if values.get(name) is not None:
                    low, high = values[name]
                    values[name] = (float(low), float(high))
            return cls(**values)
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the temporal file describes its scheme in fields this version does not know ({error}); "
                "it was probably written by another version of inflate"
            ) from error


_NOTHING = object()
# Fields that came later: files written before them have the default.
_DEFAULTS = {field.name: field.default for field in fields(Scheme) if field.default is not MISSING}


def _animatediff(name: str, source: str, max_frames: int, mid: bool = False) -> Scheme:
    return Scheme(
        name,
        source,
        convolution=False,
        attention=False,
        kernel_size=3,
        position="sinusoidal",
        fps_range=None,
        extra_in_channels=0,
        motion_modules=True,
        mid_motion_module=mid,
        max_frames=max_frames,
    )


_ROWS = (
    # name, source, conv, attn, kernel, position, fps_range, extra_in_channels
    Scheme("make-a-video", "arXiv 2209.14792, sec. 3.2", True, True, 3, "relative", (1.0, 30.0), 0),
    Scheme("vdm", "arXiv 2204.03458, sec. 3", False, True, 3, "relative", None, 0),
    # The paper says only that attention takes the place of convolution here; the rest is as in its predecessor, VDM.
    Scheme("imagen-video-base", "arXiv 2210.02303, sec. 2.2", False, True, 3, "relative", None, 0),
    Scheme("imagen-video-sr", "arXiv 2210.02303, sec. 2.3 (SSR and TSR)", True, False, 3, "none", None, 0),
    _animatediff("animatediff-v1", "arXiv 2307.04725, module v1", 24),
    _animatediff("animatediff-v2", "arXiv 2307.04725, module v2", 32, mid=True),
    _animatediff("animatediff-v3", "arXiv 2307.04725, module v3", 32),
    _animatediff("animatediff-sdxl", "arXiv 2307.04725, module for SDXL", 32),
    replace(_animatediff("hotshot-xl", "github.com/hotshotco/Hotshot-XL", 24), norm_over_video=False),
    Scheme(
        "tune-a-video",
        "arXiv 2212.11565, sec. 4.1",
        *(False, False, 3, "none", None, 0),
        token_attention=True,
        queries=True,
        frames_seen="first-and-previous",
    ),
    Scheme(
        "video-ldm",
        "arXiv 2304.08818, sec. 3.1",
        *(False, True, 3, "sinusoidal", None, 0),
        residual_blocks=True,
        merge=True,
    ),
    Scheme("text2video-zero", "arXiv 2303.13439, sec. 3", *(False, False, 3, "none", None, 0), frames_seen="first"),
    Scheme("latte", "arXiv 2401.03048, variant 1", *(False, False, 3, "sinusoidal", None, 0), temporal_blocks=True),
    Scheme(
        "spacetime-dit",
        "openai.com/index/video-generation-models-as-world-simulators",
        *(False, False, 3, "sinusoidal", None, 0),
        frames_seen="all",
        patch_frames=2,
    ),
    # SANA-Video's own convolution is a full one, after the feed-forward's last; it also attends to all frames.
    Scheme(
        "sana-video",
        "arXiv 2509.24695, after the temporal convolution of its Mix-FFN",
        *(False, False, 3, "none", None, 0),
        depthwise=True,
        feed_forward_convolution=True,
    ),
    Scheme(
        "lean",
        "ours: least time for most motion",
        *(True, True, 3, "relative", (1.0, 30.0), 0),
        depthwise=True,
        every_convolution=False,
        attention_width=0.25,
    ),
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
