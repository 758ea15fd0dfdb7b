"""Does the colour of a clip stay? The mean colour of its frames over time, generated beside real.

Three things shift the colour of diffusion models' videos. A schedule whose last step leaves some signal trains on noisy
samples that still show the mean colour, and sampling starts from noise that shows none: whatever is made comes out
medium grey (arXiv:2305.08891, section 3); the answer is zero terminal SNR, v-prediction and "trailing" timesteps.
Strong guidance saturates (section 3.4 there: rescale it). And windows drawn one after the other each begin where the
error of the last one ended; windows that are denoised side by side and blended cannot drift apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from inflate.errors import InputError


@dataclass(frozen=True)
class ColourDrift:
    """How the mean colour of one clip goes, in [0, 1], the worst of its channels.

    ``trend``: what a straight line through the frames' mean colours gains from the first to the last frame (absolute);
    ``spread``: the largest distance of a frame's mean colour from the clip's.
    """

    trend: float
    spread: float


def mean_colours(video: Tensor) -> Tensor:
    """Mean colour of each frame: (B, C, F, H, W) to (B, F, C), float64."""
    if video.ndim != 5 or video.shape[2] < 2:
        raise InputError(f"colour drift needs a video (B, C, F, H, W) of 2 frames or more, got {tuple(video.shape)}")
    return video.double().mean(dim=(3, 4)).transpose(1, 2)


def colour_drift(video: Tensor) -> list[ColourDrift]:
    """The drift of each clip of ``video`` (B, C, F, H, W) in [0, 1]."""
    colours = mean_colours(video)
    frames = colours.shape[1]
    time = torch.linspace(-0.5, 0.5, frames, dtype=torch.float64)
    gained = torch.einsum("f,bfc->bc", time, colours) / time.square().sum()
    spread = (colours - colours.mean(1, keepdim=True)).abs().amax(dim=(1, 2))
    trend = gained.abs().amax(1)
    return [ColourDrift(float(one), float(other)) for one, other in zip(trend, spread, strict=True)]


@dataclass(frozen=True)
class ColourReport:
    """Means over clips of generated and of real drift, and how far the generated clips' mean colour is from the real.

    ``offset`` is signed, per channel: above 0 the generated clips are brighter.
    """

    generated: ColourDrift
    real: ColourDrift
    worst: ColourDrift
    offset: tuple[float, ...]
    clips: int

    @property
    def steady(self) -> bool:
        """Whether generated clips drift and spread no more than real ones on average, or by less than 1 / 255."""
        pairs = ((self.generated.trend, self.real.trend), (self.generated.spread, self.real.spread))
        return all(made <= max(true, 1 / 255) for made, true in pairs)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {**asdict(self), "steady": self.steady}


def measure_colour(
    names: Sequence[str],
    generated_clip: Callable[[str], Tensor],
    real_clip: Callable[[str], Tensor],
    on_clip: Callable[[], None] | None = None,
) -> ColourReport:
    """Compare clips (1, C, F, H, W) in [0, 1] of the same things; the numbers of frames may differ."""
    if not names:
        raise InputError("there is no clip to measure colour on")
    made: list[ColourDrift] = []
    true: list[ColourDrift] = []
    offsets = []
    for name in names:
        generated, real = generated_clip(name), real_clip(name)
        made += colour_drift(generated)
        true += colour_drift(real)
        offsets.append((mean_colours(generated).mean(1) - mean_colours(real).mean(1))[0])
        if on_clip is not None:
            on_clip()
    offset = torch.stack(offsets).mean(0).tolist()
    worst = ColourDrift(max(one.trend for one in made), max(one.spread for one in made))
    return ColourReport(_mean(made), _mean(true), worst, tuple(offset), len(names))


def _mean(drifts: Sequence[ColourDrift]) -> ColourDrift:
    count = len(drifts)
    return ColourDrift(sum(one.trend for one in drifts) / count, sum(one.spread for one in drifts) / count)
