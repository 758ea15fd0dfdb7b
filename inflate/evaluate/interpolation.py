"""Frame interpolation beside the truth: PSNR of new frames for any method and for what needs no training.

Those are the linear blend of the known neighbours, FFmpeg's ``minterpolate``, and optical flow (OpenCV's DIS). Clips
are ``(1, 3, F, S, S)`` in [0, 1]; every method sees the same known frames, and its frames count as the 8-bit pixels
that a file would hold.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from inflate.data.minterpolate import minterpolate
from inflate.data.optical_flow import flows_between, move_to_between
from inflate.errors import InputError
from inflate.evaluate.super_resolution import PSNR_CAP, frame_psnr
from inflate.evaluate.things import Things

Interpolate = Callable[[Tensor, Tensor, float, int], Tensor]
"""``(clip (1, 3, F, S, S) in [0, 1] with zeros where unknown, known (F,) bool, fps, seed)`` to the whole clip."""

REPEAT, BLEND, MINTERPOLATE, FLOW = "repeat", "linear blend", "minterpolate", "optical flow (DIS)"


@dataclass(frozen=True)
class InterpolationRow:
    """One method: mean PSNR of the new frames in dB, each frame's capped; the least of all clips' means beside it."""

    name: str
    psnr: float
    worst_clip: float
    trained: bool


@dataclass(frozen=True)
class InterpolationReport:
    """All methods on the same clips: ``between`` known frames ``skip`` apart, and the last ``tail`` frames ``after``
    the others."""

    between: tuple[InterpolationRow, ...]
    after: tuple[InterpolationRow, ...]
    clips: int
    num_frames: int
    skip: int
    tail: int
    fps: float
    size: int
    seed: int

    def row(self, name: str) -> InterpolationRow:
        """The row of one method between known frames."""
        return next(row for row in self.between if row.name == name)

    @property
    def best_reference(self) -> InterpolationRow:
        """The best method that needs no training, between known frames."""
        return max((row for row in self.between if not row.trained), key=lambda row: row.psnr)

    def gain(self, name: str) -> float:
        """How many dB a method lies above the best one that needs no training, between known frames."""
        return self.row(name).psnr - self.best_reference.psnr

    def gain_after(self, name: str) -> float:
        """How many dB a method lies above repeating the last known frame, after it."""
        rows = {row.name: row.psnr for row in self.after}
        return rows[name] - rows[REPEAT]

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        gains = {row.name: self.gain(row.name) for row in self.between if row.trained}
        after = {row.name: self.gain_after(row.name) for row in self.after if row.trained}
        return {**asdict(self), "gain": gains, "gain_after": after}


def known_pair(known: Tensor, index: int) -> tuple[int, int, float]:
    """Numbers of the known frames around frame ``index``, and how far between them it lies; one twice at an end."""
    told = known.nonzero().flatten().tolist()
    if not told:
        raise InputError("no frame is known, so there is nothing to interpolate from")
    before = max((place for place in told if place <= index), default=told[0])
    after = min((place for place in told if place >= index), default=told[-1])
    return before, after, (index - before) / (after - before) if after != before else 0.0


def repeat(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
    """The known frame before (before the first one: the first)."""
    return clip[:, :, [known_pair(known, index)[0] for index in range(clip.shape[2])]]


def linear_blend(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
    """Both neighbours, weighted by nearness."""
    pairs = [known_pair(known, index) for index in range(clip.shape[2])]
    before, after = clip[:, :, [first for first, _, _ in pairs]], clip[:, :, [last for _, last, _ in pairs]]
    return torch.lerp(before, after, torch.tensor([time for _, _, time in pairs])[None, None, :, None, None])


def by_minterpolate(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
    """FFmpeg's filter; known frames must lie evenly, the first and the last among them."""
    told = known.nonzero().flatten()
    steps = told.diff()
    if not (known[0] and known[-1]) or len(steps.unique()) > 1:
        raise InputError("minterpolate needs known frames at even steps, the first and the last among them")
    skip = int(steps[0]) if len(steps) else 1
    return _from_bytes(minterpolate(_to_bytes(clip[:, :, known]), skip))


def by_optical_flow(clip: Tensor, known: Tensor, fps: float, seed: int) -> Tensor:
    """Both neighbours moved along OpenCV's DIS flow to the time between, and blended there: ``move_to_between``."""
    frames, made = _to_bytes(clip), []
    pairs = [known_pair(known, index) for index in range(len(frames))]
    flows = flows_between(frames, [(before, after) for before, after, _ in pairs])
    for before, after, time in pairs:
        if before == after:
            made.append(frames[before].astype(np.float32))
            continue
        early, late = move_to_between(frames[before], frames[after], flows[before, after], time)
        made.append((1 - time) * early + time * late)
    return _from_bytes(np.stack(made))


REFERENCES: dict[str, Interpolate] = {
    REPEAT: repeat,
    BLEND: linear_blend,
    MINTERPOLATE: by_minterpolate,
    FLOW: by_optical_flow,
}


def measure_interpolation(
    methods: Mapping[str, Interpolate],
    truths: Iterable[Tensor],
    skip: int = 5,
    tail: int = 4,
    fps: float = 24.0,
    seed: int = 0,
    on_clip: Callable[[], None] | None = None,
) -> InterpolationReport:
    """Every method and every reference on every clip.

    Args:
        methods: by name; the references are added.
        truths: true clips ``(1, 3, F, S, S)`` in [0, 1], all of one shape, F - 1 a multiple of ``skip``.
        skip: every ``skip``-th frame is known between; the first and the last are.
        tail: that many last frames are unknown after; the references' rows there are repeating and nothing else.
        fps: frame rate of the clips, handed to the methods.
        seed: clip number n is interpolated from ``seed + n``.
        on_clip: called after each clip (progress).

    Raises:
        InputError: no clip, one too short, or a method of a reference's name.
    """
    if clash := set(methods) & set(REFERENCES):
        raise InputError(f"a method may not be called {min(clash)!r}, which is always measured")
    between: dict[str, list[float]] = {name: [] for name in (*REFERENCES, *methods)}
    after: dict[str, list[float]] = {name: [] for name in (REPEAT, *methods)}
    shape: tuple[int, ...] = ()
    for number, truth in enumerate(truths):
        shape = tuple(truth.shape)
        masks = _masks(shape[2], skip, tail)
        for table, known in zip((between, after), masks, strict=True):
            told = torch.where(known[None, None, :, None, None], truth, 0)
            for name, scores in table.items():
                made = (REFERENCES | dict(methods))[name](told, known, fps, seed + number).float().cpu()
                scores.append(_score(made, truth, known))
        if on_clip is not None:
            on_clip()
    if not shape:
        raise InputError("there is no clip to measure frame interpolation on")
    tables = (_rows(between, methods), _rows(after, methods))
    return InterpolationReport(*tables, len(between[REPEAT]), shape[2], skip, tail, fps, shape[3], seed)


def evaluate_interpolation(
    methods: Mapping[str, Interpolate],
    things: Things,
    split: str = "test",
    clips: int | None = None,
    num_frames: int = 16,
    fps: float = 24.0,
    skip: int = 5,
    tail: int = 4,
    seed: int = 0,
    on_clip: Callable[[], None] | None = None,
) -> InterpolationReport:
    """The same on real clips of ``split`` (None: all of them), from their first frame on."""
    names = things.choose(split, clips, seed)
    truths = (things.clip_of(name, fps, num_frames) for name in names)
    return measure_interpolation(methods, truths, skip, tail, fps, seed, on_clip)


def markdown_table(report: InterpolationReport) -> str:
    """The report as a markdown table, a row per method."""
    after = {row.name: row for row in report.after}
    lines = [
        f"| | new frames between, skip {report.skip} (dB) | over {report.best_reference.name} "
        f"| last {report.tail} frames (dB) | over {REPEAT} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report.between:
        beyond = f"{after[row.name].psnr:.2f} | {report.gain_after(row.name):+.2f}" if row.name in after else " | "
        lines.append(f"| {row.name} | {row.psnr:.2f} | {report.gain(row.name):+.2f} | {beyond} |")
    return "\n".join(lines)


def _masks(num_frames: int, skip: int, tail: int) -> tuple[Tensor, Tensor]:
    if skip < 2 or num_frames <= skip or (num_frames - 1) % skip:
        raise InputError(
            f"clips of {num_frames} frames do not begin and end with a known frame at skip {skip}; "
            f"take {skip} n + 1 frames and a skip of 2 or more"
        )
    if not 1 <= tail < num_frames:
        raise InputError(f"the last {tail} of {num_frames} frames cannot be extrapolated; leave at least one known")
    places = torch.arange(num_frames)
    return places % skip == 0, places < num_frames - tail


def _score(made: Tensor, truth: Tensor, known: Tensor) -> float:
    """Mean PSNR of the unknown frames, as 8-bit pixels."""
    if made.shape != truth.shape:
        raise InputError(f"a method gave a clip of shape {tuple(made.shape)} for one of {tuple(truth.shape)}")
    stored = (made.clamp(0, 1) * 255).round() / 255
    return float(frame_psnr(stored[:, :, ~known], truth[:, :, ~known], PSNR_CAP).mean())


def _rows(table: Mapping[str, list[float]], methods: Mapping[str, Interpolate]) -> tuple[InterpolationRow, ...]:
    return tuple(
        InterpolationRow(name, sum(scores) / len(scores), min(scores), name in methods)
        for name, scores in table.items()
    )


def _to_bytes(clip: Tensor) -> np.ndarray:
    """(1, 3, F, H, W) in [0, 1] to uint8 (F, H, W, 3)."""
    return (clip[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).contiguous().numpy()


def _from_bytes(frames: np.ndarray) -> Tensor:
    """(F, H, W, 3) of 0 to 255 to (1, 3, F, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().permute(3, 0, 1, 2)[None] / 255
