"""How long a video will take: learned from those made before, and counted down."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

Mark = tuple[float, float]
"""A share of a job's work, from 0 to 1, and the seconds after which that much was done."""

_SURE = 0.05  # share of the work from which a job that has no forerunner says how long it will take
_LATE = 1.5


@dataclass(frozen=True)
class Pace:
    """What one job took: its seconds, and (share of work, share of time) as both rose."""

    seconds: float
    curve: tuple[tuple[float, float], ...]

    def time_share(self, fraction: float) -> float:
        """Which share of the time has passed when ``fraction`` of the work is done; between two marks, straight."""
        place = bisect_left(self.curve, (fraction, 0.0))
        before = self.curve[place - 1] if place else (0.0, 0.0)
        after = self.curve[place] if place < len(self.curve) else (1.0, 1.0)
        width = after[0] - before[0]
        return after[1] if width <= 0 else before[1] + (after[1] - before[1]) * (fraction - before[0]) / width


class Paces:
    """The last job of each kind. Reading, loading and writing are in it as they were measured, whatever they weigh."""

    def __init__(self) -> None:
        self._last: dict[str, Pace] = {}

    def learn(self, kind: str, marks: Sequence[Mark], seconds: float) -> None:
        """A job of that kind took ``seconds``."""
        rising = sorted((fraction, min(1.0, at / seconds)) for fraction, at in marks) if seconds > 0 else []
        self._last[kind] = Pace(seconds, tuple(rising))

    def of(self, kind: str) -> Pace | None:
        """That of the last job of a kind."""
        return self._last.get(kind)

    def seconds(self, kind: str) -> float | None:
        """How long a job of a kind will take; what others took on average if there was none; None before any."""
        found = self._last.get(kind)
        if found is not None:
            return found.seconds
        every = [pace.seconds for pace in list(self._last.values())]
        return sum(every) / len(every) if every else None


class Countdown:
    """Seconds left of one job, which never grow: where it turns out slower, they stop, and then nothing is said."""

    def __init__(self, pace: Pace | None) -> None:
        self.pace = pace
        self._shown: float | None = None

    def left(self, elapsed: float, fraction: float) -> float | None:
        """Seconds left when ``fraction`` is done after ``elapsed`` seconds; None where that cannot be told."""
        guess = self._guess(elapsed, fraction)
        if guess is None or fraction >= 1:
            return None
        if self._shown is None or guess < self._shown:
            self._shown = guess
        return self._shown if guess <= _LATE * self._shown + 1 else None

    def _guess(self, elapsed: float, fraction: float) -> float | None:
        if self.pace is None:
            return None if fraction < _SURE else elapsed * (1 - fraction) / fraction
        share = self.pace.time_share(fraction)
        # What the last one took is the better guess at first, this one's own pace later.
        total = self.pace.seconds if share <= 0 else (1 - share) * self.pace.seconds + elapsed
        return max(0.0, total * (1 - share))
