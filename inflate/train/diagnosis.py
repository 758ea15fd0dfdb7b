"""What is wrong with a run, in words, from its numbers alone: what was logged, and facts that the step states.

Facts, all optional:

- ``temporal_change``: how far the temporal layers move what goes through them, the largest change of one number; 0 at
  the identity.
- ``sample_motion``, ``data_motion``: mean absolute difference of neighbouring frames, of generated and of real clips.
- ``sample_colour_drift``, ``data_colour_drift``: what the mean colour gains from the first to the last frame, in
  [0, 1], the worst channel (``inflate.evaluate.colour.ColourDrift.trend``).
- ``captions``, ``distinct_captions``: numbers of captions of the training clips, all and different.
- ``clip_fps_lowest``, ``clip_fps_highest``: frame rates asked for; ``trained_fps_lowest``, ``trained_fps_highest``:
  those that the layers are trained on.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IDENTITY_UPDATES = 20  # so many updates are enough to leave the identity at any useful learning rate
_LEAST_LINES = 20  # fewer losses say nothing about a trend
_CERTAIN = 3.0  # standard errors; of a normal distribution 0.1 % lies beyond on one side


@dataclass(frozen=True)
class Finding:
    """One sentence about a run; ``good`` ones say what has been reached, the others what to try."""

    name: str
    sentence: str
    good: bool = False


@dataclass(frozen=True)
class Trend:
    """Means of the first and of the last fifth of a noisy series, and the standard error of their difference."""

    first: float
    last: float
    error: float

    @property
    def fell(self) -> bool:
        """Whether it fell by more than chance explains."""
        return self.first - self.last > _CERTAIN * self.error

    @property
    def rose(self) -> bool:
        """Whether it rose by more than chance explains."""
        return self.last - self.first > _CERTAIN * self.error


def trend(values: Sequence[float]) -> Trend | None:
    """The trend of ``values`` (Welch's standard error), None for fewer than 20 of them."""
    if len(values) < _LEAST_LINES:
        return None
    width = max(5, len(values) // 5)
    first, last = values[:width], values[-width:]
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / width)
    return Trend(statistics.fmean(first), statistics.fmean(last), error)


def nothing_learned(rates: Sequence[float], changes: Sequence[float], updates: int) -> Finding | None:
    """Learning rates so far were 0, or the temporal layers still are the identity after ``updates``."""
    if rates and max(rates) == 0:
        return Finding(
            "nothing-learned",
            "train.learning_rate is 0: nothing has been learned; set it to 1e-4 and look again.",
        )
    if changes and max(changes) <= 1e-6 and updates >= IDENTITY_UPDATES:
        return Finding(
            "nothing-learned",
            f"The temporal layers still are the identity after {updates} updates: nothing has been learned; look "
            "whether `trainable` includes them, and raise train.learning_rate.",
        )
    return None


def loss_flat(losses: Sequence[float], validation: Sequence[float]) -> Finding | None:
    """The held-out loss has not fallen; without one, the training loss has not, and its noise would not hide it.

    The held-out loss is taken at fixed noise and timesteps, so its values compare without noise: it counts as fallen
    from 0.2 % on.
    """
    what = "try a higher train.learning_rate, more updates, or clips that move more."
    if len(validation) >= 2:
        first, best = validation[0], min(validation[1:])
        if first - best < 0.002 * abs(first):
            return Finding(
                "loss-flat",
                f"The held-out loss has not fallen ({first:.4f} at first, {best:.4f} at best): nothing that lowers it "
                f"has been learned; {what}",
            )
        return None
    found = trend(losses)
    # Where chance alone moves the mean by a twentieth, a useful fall could be hidden: nothing can be said.
    if found is None or found.fell or _CERTAIN * found.error > 0.05 * abs(found.first):
        return None
    return Finding(
        "loss-flat",
        f"The loss has not fallen ({found.first:.4f} at first, {found.last:.4f} at last, chance moves it by "
        f"{found.error:.4f}): nothing seems to be learned; {what}",
    )


def diverging(losses: Sequence[float], rate: float) -> Finding | None:
    """The last window of losses is half as high again as the lowest one before it, beyond chance."""
    if any(not math.isfinite(loss) for loss in losses[-1:]):
        return Finding("diverging", f"The loss is not a number; {_slower(rate)}")
    if len(losses) < _LEAST_LINES:
        return None
    width = max(5, len(losses) // 10)
    windows = [losses[start : start + width] for start in range(0, len(losses) - width + 1, width)]
    lowest = min(windows, key=statistics.fmean)
    last = losses[-width:]
    error = math.sqrt((statistics.variance(lowest) + statistics.variance(last)) / width)
    rise = statistics.fmean(last) - statistics.fmean(lowest)
    if rise <= 0.5 * abs(statistics.fmean(lowest)) or rise <= _CERTAIN * error:
        return None
    return Finding(
        "diverging",
        f"The loss is rising: {statistics.fmean(lowest):.4f} at its lowest, {statistics.fmean(last):.4f} now; "
        f"{_slower(rate)}",
    )


def _slower(rate: float) -> str:
    return (
        f"set train.learning_rate to {rate / 3:.1g} (it is {rate:.1g}) or give it more train.warmup_steps, and start "
        "the same command again: it goes on from the last checkpoint."
    )


def overfitting(updates: Sequence[int], validation: Sequence[float]) -> Finding | None:
    """The held-out loss fell and has risen again by more than half of what it had fallen."""
    if len(validation) < 3:
        return None
    best = min(range(len(validation)), key=validation.__getitem__)
    gained, lost = validation[0] - validation[best], validation[-1] - validation[best]
    if gained <= 0 or lost <= 0.5 * gained:
        return None
    return Finding(
        "overfitting",
        f"The held-out loss was lowest at update {updates[best]} ({validation[best]:.4f}) and has risen to "
        f"{validation[-1]:.4f}: the clips are learned by heart; stop near there, take more clips or a lower "
        "train.learning_rate.",
    )


def against_image_model(validation: float, image_model: float) -> Finding | None:
    """The video model denoises held-out clips no better than the image model does frame by frame."""
    if validation < image_model:
        return None
    return Finding(
        "no-better-than-frames",
        f"The video model's held-out loss ({validation:.4f}) is not below the image model's frame by frame "
        f"({image_model:.4f}): the frames do not help each other yet; train longer or with a higher "
        "train.learning_rate.",
    )


def motion(sample: float, data: float) -> Finding | None:
    """Generated clips hardly move beside real ones, or flicker."""
    if data <= 0:
        return None
    ratio = sample / data
    if ratio < 0.3:
        return Finding(
            "static",
            f"Generated clips hardly move: {ratio:.2f} of the real clips' motion; train longer, keep static clips out "
            "(data.min_motion), share less noise between frames, or lower data.fps so that frames lie further apart.",
        )
    if ratio > 3:
        return Finding(
            "flicker",
            f"Generated clips change {ratio:.1f} times as much from frame to frame as real ones, which looks like "
            "flicker; train longer, and sample with more steps and less guidance.",
        )
    if 0.5 <= ratio <= 2:
        return Finding("motion", f"Generated clips move {ratio:.2f} times as much as real ones.", good=True)
    return None


def colour_drift(sample: float, data: float = 0.0) -> Finding | None:
    """The colour of generated clips drifts, twice as far as real ones' and visibly (12 of 255 levels)."""
    if sample <= max(2 * data, 12 / 255):
        return None
    return Finding(
        "colour-drift",
        f"The mean colour of generated clips drifts by {sample:.2f} of its range from the first to the last frame; use "
        "less guidance, a schedule with zero terminal SNR, or more updates at a lower train.learning_rate.",
    )


def captions_equal(count: float, distinct: float) -> Finding | None:
    """All of several clips have one caption."""
    if count < 2 or distinct > 1:
        return None
    return Finding(
        "captions-equal",
        f"All {count:g} clips have the same caption: what is asked for will make no difference to the motion; give "
        "each clip its own (clip.txt beside clip.mp4), or train without captions.",
    )


def rate_outside(lowest: float, highest: float, trained_lowest: float, trained_highest: float) -> Finding | None:
    """Clips are asked for at frame rates (frames per second) outside the range trained; 1 % is forgiven."""
    if lowest >= trained_lowest * 0.99 and highest <= trained_highest * 1.01:
        return None
    asked = f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"
    trained = (
        f"{trained_lowest:g}"
        if trained_lowest == trained_highest
        else f"between {trained_lowest:g} and {trained_highest:g}"
    )
    return Finding(
        "rate-outside",
        f"Clips are asked for at {asked} frames per second and trained at {trained}: motion will be too slow or too "
        "fast; ask for a rate in that range, or widen data.fps.",
    )


def diagnose(lines: Sequence[Mapping[str, Any]], facts: Mapping[str, float] | None = None) -> list[Finding]:
    """Everything that can be said about a run.

    Args:
        lines: of ``log.jsonl`` in order; each has ``update`` and any of ``loss``, ``learning_rate``,
            ``validation_loss``, ``image_model_loss`` and facts. None stands for a number that was not finite.
        facts: the newest, where they are newer than the last line's.
    """
    known: dict[str, Any] = {}
    for line in lines:
        known |= line
    known |= facts or {}
    updates = int(known.get("update", 0))
    losses = [math.nan if line["loss"] is None else float(line["loss"]) for line in lines if "loss" in line]
    finite = [loss for loss in losses if math.isfinite(loss)]
    rates = [float(line["learning_rate"]) for line in lines if line.get("learning_rate") is not None]
    changes = _numbers(lines, "temporal_change")
    validated = [line for line in lines if line.get("validation_loss") is not None]
    validation = _numbers(validated, "validation_loss")
    idle = nothing_learned(rates, changes + _numbers([known], "temporal_change"), updates)
    found = [
        idle,
        None if idle else loss_flat(finite, validation),
        diverging(losses, rates[-1] if rates else 0.0),
        overfitting([line["update"] for line in validated], validation),
    ]
    rules = {
        against_image_model: ("validation_loss", "image_model_loss"),
        motion: ("sample_motion", "data_motion"),
        captions_equal: ("captions", "distinct_captions"),
        rate_outside: ("clip_fps_lowest", "clip_fps_highest", "trained_fps_lowest", "trained_fps_highest"),
    }
    if not any(line["update"] for line in validated):
        del rules[against_image_model]  # before the first update the two are equal, which says nothing of the training
    for rule, names in rules.items():
        values = [known.get(name) for name in names]
        if None not in values and updates > 0:
            found.append(rule(*values))
    if known.get("sample_colour_drift") is not None:
        found.append(colour_drift(known["sample_colour_drift"], known.get("data_colour_drift") or 0.0))
    return [finding for finding in [*found, _progress(finite, validation, known)] if finding is not None]


def _numbers(lines: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(line[name]) for line in lines if line.get(name) is not None]


def _progress(losses: Sequence[float], validation: Sequence[float], known: Mapping[str, Any]) -> Finding | None:
    """What has been reached, where it is more than chance."""
    if len(validation) >= 2 and validation[-1] < validation[0] * 0.998:
        share = 1 - validation[-1] / validation[0]
        beside = known.get("image_model_loss")
        frames = f"; the image model alone has {beside:.4f}" if beside is not None else ""
        return Finding(
            "learned",
            f"The held-out loss fell from {validation[0]:.4f} to {validation[-1]:.4f} ({100 * share:.1f} %){frames}.",
            good=True,
        )
    found = trend(losses)
    if len(validation) < 2 and found is not None and found.fell:
        return Finding("learned", f"The loss fell from {found.first:.4f} to {found.last:.4f}.", good=True)
    return None
