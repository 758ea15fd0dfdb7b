"""How much a clip moves: the mean absolute difference between neighbouring frames, pixels in [0, 1].

At a higher frame rate neighbouring frames lie closer in time, so the measure must fall as the frame rate rises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from torch import Tensor

from inflate.errors import InputError

FRAME_RATES = (4.0, 8.0, 16.0, 30.0)
# Issue 2: generated clips move within 0.5 to 2 times what real ones do at the same frame rate.
ALLOWED_RATIO = (0.5, 2.0)


def mean_frame_difference(video: Tensor) -> Tensor:
    """Mean of ``|frame[i+1] - frame[i]|`` over pixels, channels and the F - 1 steps.

    ``video`` is ``(B, C, F, H, W)`` in [0, 1], F at least 2; the result is ``(B,)`` float64.
    """
    if video.ndim != 5 or video.shape[2] < 2:
        raise InputError(f"motion needs a video (B, C, F, H, W) of at least 2 frames, got shape {tuple(video.shape)}")
    frames = video.double()
    return (frames[:, :, 1:] - frames[:, :, :-1]).abs().mean(dim=(1, 2, 3, 4))


def falls_with_frame_rate(motion_by_fps: Mapping[float, float]) -> bool:
    """True when the motion between neighbouring frames strictly falls from each frame rate to the next higher one."""
    values = [motion_by_fps[fps] for fps in sorted(motion_by_fps)]
    return all(slow > fast for slow, fast in pairwise(values))


@dataclass(frozen=True)
class MotionRow:
    """Motion at one frame rate: means over clips of :func:`mean_frame_difference`, and generated over real."""

    fps: float
    generated: float
    real: float
    ratio: float
    within_bounds: bool


@dataclass(frozen=True)
class MotionReport:
    """Motion of generated and real clips of the same prompts at several frame rates."""

    rows: tuple[MotionRow, ...]
    generated_falls_with_fps: bool
    real_falls_with_fps: bool
    prompts: tuple[str, ...]
    generated_by_prompt: dict[str, list[float]]
    real_by_prompt: dict[str, list[float]]

    @property
    def passes(self) -> bool:
        """Every ratio within :data:`ALLOWED_RATIO` and generated motion falling with the frame rate."""
        return self.generated_falls_with_fps and all(row.within_bounds for row in self.rows)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {**asdict(self), "passes": self.passes}


def motion_row(fps: float, generated: Sequence[float], real: Sequence[float]) -> MotionRow:
    """One row from the motion of each generated and each real clip; clips that stand still count as they are."""
    if not generated or not real:
        raise InputError(f"there is no clip to measure at {fps:g} frames a second")
    generated_mean, real_mean = sum(generated) / len(generated), sum(real) / len(real)
    if real_mean == 0:
        raise InputError(f"the real clips stand still at {fps:g} frames a second, so no ratio of motion exists")
    ratio = generated_mean / real_mean
    return MotionRow(fps, generated_mean, real_mean, ratio, ALLOWED_RATIO[0] <= ratio <= ALLOWED_RATIO[1])


def measure_motion(
    names: Sequence[str],
    generated_clip: Callable[[str, float], Tensor],
    real_clip: Callable[[str, float], Tensor],
    frame_rates: Sequence[float] = FRAME_RATES,
    on_clip: Callable[[], None] | None = None,
) -> MotionReport:
    """Compare generated and real motion for the same things at each frame rate.

    Args:
        names: the things, one clip of each per frame rate.
        generated_clip: ``(name, fps)`` to ``(1, C, F, H, W)`` in [0, 1].
        real_clip: the same for real clips, with the same F.
        frame_rates: frames per second.
        on_clip: called after each pair of clips (progress).
    """
    generated: dict[float, list[float]] = {fps: [] for fps in frame_rates}
    real: dict[float, list[float]] = {fps: [] for fps in frame_rates}
    for name in names:
        for fps in frame_rates:
            generated[fps].append(float(mean_frame_difference(generated_clip(name, fps))[0]))
            real[fps].append(float(mean_frame_difference(real_clip(name, fps))[0]))
            if on_clip is not None:
                on_clip()
    rows = tuple(motion_row(fps, generated[fps], real[fps]) for fps in sorted(frame_rates))
    return MotionReport(
        rows=rows,
        generated_falls_with_fps=falls_with_frame_rate({row.fps: row.generated for row in rows}),
        real_falls_with_fps=falls_with_frame_rate({row.fps: row.real for row in rows}),
        prompts=tuple(names),
        generated_by_prompt={f"{fps:g}": values for fps, values in generated.items()},
        real_by_prompt={f"{fps:g}": values for fps, values in real.items()},
    )
