"""Super-resolution beside the truth: PSNR, distance of EfficientNet features, and flicker, for several upscalers.

Clips are ``(1, 3, F, S, S)`` in [0, 1]. All upscalers see the same low-resolution clips, and bicubic enlargement is
always among them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from inflate.errors import InputError
from inflate.evaluate.features import PictureFeatures
from inflate.evaluate.motion import mean_frame_difference
from inflate.evaluate.things import Things
from inflate.video import fold_frames, unfold_frames

PSNR_CAP = 60.0
BICUBIC = "bicubic"

Upscale = Callable[[Tensor, float, int], Tensor]
"""``(low-resolution clip (1, 3, F, h, w) in [0, 1], fps, seed)`` to the enlarged clip ``(1, 3, F, S, S)``."""


@dataclass(frozen=True)
class UpscalerRow:
    """One upscaler, means over clips.

    ``psnr`` in dB, of each frame, capped; ``feature_distance``: Euclidean, of each frame to the true one; ``motion``:
    mean absolute difference of neighbouring frames; ``flicker``: ``motion`` minus that of the true frames, which blur
    lowers as well as steadiness; ``still_motion``: the same difference in those pixels alone whose true colour stays as
    it is from one frame to the next, None where no pixel of any clip does.
    """

    name: str
    psnr: float
    feature_distance: float
    motion: float
    flicker: float
    still_motion: float | None


@dataclass(frozen=True)
class SuperResolutionReport:
    """All upscalers on the same clips, bicubic enlargement first."""

    rows: tuple[UpscalerRow, ...]
    true_motion: float
    clips: int
    num_frames: int
    fps: float
    size: int
    scale: int
    seed: int

    def row(self, name: str) -> UpscalerRow:
        """The row of one upscaler."""
        return next(row for row in self.rows if row.name == name)

    def psnr_over_bicubic(self, name: str) -> float:
        """How many dB an upscaler lies above bicubic enlargement."""
        return self.row(name).psnr - self.row(BICUBIC).psnr

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {**asdict(self), "psnr_over_bicubic": {row.name: self.psnr_over_bicubic(row.name) for row in self.rows}}


def frame_psnr(made: Tensor, true: Tensor, cap: float = PSNR_CAP) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, peak 1, at most ``cap``: clips (1, C, F, H, W) to (F,)."""
    if made.shape != true.shape:
        raise InputError(f"PSNR needs two clips of one shape, got {tuple(made.shape)} and {tuple(true.shape)}")
    error = (made.double() - true.double()).square().mean(dim=(0, 1, 3, 4))
    return (-10 * torch.log10(error)).clamp(max=cap)


def still_places(clip: Tensor) -> Tensor:
    """Where a clip (1, 3, F, H, W) of 8-bit colours keeps its colour to the next frame: (1, F - 1, H, W) bool."""
    return clip.diff(dim=2).abs().amax(dim=1) < 0.5 / 255


def shrink_clip(clip: Tensor, scale: int) -> Tensor:
    """A clip ``(1, 3, F, S, S)`` at 1 / ``scale`` of its size, each pixel the mean of a box, as frame caches are made.

    Raises:
        InputError: sides that are no multiples of ``scale``.
    """
    height, width = clip.shape[-2:]
    if height % scale or width % scale:
        raise InputError(
            f"clips of {height} x {width} px cannot be shrunk {scale} times; read the data at another size"
        )
    return unfold_frames(F.avg_pool2d(fold_frames(clip), scale), clip.shape[2])


def bicubic(low: Tensor, scale: int) -> Tensor:
    """A clip enlarged by bicubic interpolation with antialiasing, clipped to [0, 1]."""
    size = (low.shape[-2] * scale, low.shape[-1] * scale)
    made = F.interpolate(fold_frames(low), size, mode="bicubic", antialias=True, align_corners=False)
    return unfold_frames(made.clamp(0, 1), low.shape[2])


def measure_super_resolution(
    upscalers: Mapping[str, Upscale],
    truths: Iterable[Tensor],
    scale: int,
    features: PictureFeatures,
    fps: float = 8.0,
    seed: int = 0,
    degrade: Callable[[Tensor], Tensor] | None = None,
    on_clip: Callable[[], None] | None = None,
) -> SuperResolutionReport:
    """Every upscaler on every clip.

    Args:
        upscalers: by name; ``bicubic`` is added.
        truths: true clips ``(1, 3, F, S, S)`` in [0, 1], all of one shape, F at least 2; taken one at a time.
        scale: how many times they are shrunk first.
        features: pictures to features.
        fps: frame rate of the clips, handed to the upscalers.
        seed: of the upscalers' noise; clip number n is enlarged from ``seed + n``.
        degrade: low-resolution clip to low-resolution clip, such as through an autoencoder.
        on_clip: called after each clip (progress).
    """
    if BICUBIC in upscalers:
        raise InputError(f"an upscaler may not be called {BICUBIC!r}, which is always measured")
    every: dict[str, Upscale] = {BICUBIC: lambda low, fps, seed: bicubic(low, scale), **upscalers}
    sums = {name: torch.zeros(4, dtype=torch.float64) for name in every}
    true_motion, still_pixels, count, shape = 0.0, 0, 0, (0, 0)
    for number, truth in enumerate(truths):
        low = shrink_clip(truth, scale)
        low = low if degrade is None else degrade(low)
        true_motion += float(mean_frame_difference(truth)[0])
        true_features, still = features(fold_frames(truth)), still_places(truth)
        still_pixels += int(still.sum())
        for name, upscale in every.items():
            made = upscale(low, fps, seed + number).float().cpu().clamp(0, 1)
            distance = (features(fold_frames(made)) - true_features).double().norm(dim=1).mean()
            motion = mean_frame_difference(made)[0]
            stirred = (made.diff(dim=2).abs().mean(dim=1)[still]).double().sum()
            sums[name] += torch.stack([frame_psnr(made, truth).mean(), distance, motion, stirred])
        count, shape = count + 1, (truth.shape[2], truth.shape[3])
        if on_clip is not None:
            on_clip()
    if not count:
        raise InputError("there is no clip to measure super-resolution on")
    true_motion /= count
    rows = []
    for name, total in sums.items():
        psnr, distance, motion = (total[:3] / count).tolist()
        still_motion = float(total[3]) / still_pixels if still_pixels else None
        rows.append(UpscalerRow(name, psnr, distance, motion, motion - true_motion, still_motion))
    return SuperResolutionReport(tuple(rows), true_motion, count, shape[0], fps, shape[1], scale, seed)


def evaluate_super_resolution(
    upscalers: Mapping[str, Upscale],
    things: Things,
    features: PictureFeatures,
    scale: int,
    split: str = "test",
    clips: int | None = None,
    seed: int = 0,
    num_frames: int = 16,
    fps: float = 8.0,
    degrade: Callable[[Tensor], Tensor] | None = None,
    on_clip: Callable[[], None] | None = None,
) -> SuperResolutionReport:
    """The same on real clips of ``split`` (None: all of them), from a cache at the size of the large frames.

    SR_l^t is measured at its own sizes. Where there is no data as large as SR_h's frames, it is measured one octave
    lower, as it was trained.
    """
    names = things.choose(split, clips, seed)
    truths = (things.clip_of(name, fps, num_frames) for name in names)
    return measure_super_resolution(upscalers, truths, scale, features, fps, seed, degrade, on_clip)


def markdown_table(report: SuperResolutionReport) -> str:
    """The report as a markdown table, a row per upscaler."""
    lines = [
        "| | PSNR (dB) | over bicubic | feature distance | motion | flicker | motion where nothing moves |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report.rows:
        gain = report.psnr_over_bicubic(row.name)
        lines.append(
            f"| {row.name} | {row.psnr:.2f} | {gain:+.2f} | {row.feature_distance:.3f} | {row.motion:.5f} "
            f"| {row.flicker:+.5f} | {'' if row.still_motion is None else format(row.still_motion, '.5f')} |"
        )
    lines.append(f"| true frames | | | 0 | {report.true_motion:.5f} | 0 | 0 |")
    return "\n".join(lines)
