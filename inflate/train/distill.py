"""Distillation as a chain of runs: N -> N/2 -> ... -> 1 steps, each student the next one's teacher.

Progressive distillation (arXiv:2202.00512) with guidance distilled into the weights first, as Imagen Video does for
every model of its cascade (arXiv:2210.02303, section 2.7), or consistency distillation (arXiv:2310.04378). Every phase
is a run of the ordinary loop in a folder of its own, so that what was killed goes on where it stopped, and what is done
is not done again.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.recipe import Recipe, parse_table
from inflate.train.state import checkpoints

# Where a step's option names the network to start from, and what its export calls that network.
_START: dict[str, str] = {
    "prior": "prior",
    "decoder": "unet",
    "video-decoder": "unet",
    "interpolation": "interpolation_unet",
    "image-super-resolution": "unet",
    "video-super-resolution": "unet",
}


@dataclass(frozen=True)
class DistillOptions:
    """The [options] of a recipe for ``inflate distill``.

    ``of``: the step that trained the teacher; ``step``: its options, ``init`` being the teacher. ``phases``: in order,
    ``"guidance"``, ``"consistency"``, or a number of steps, each half of the one before it; ``updates``: how long each
    phase lasts, one number each or one for all. ``guidance_range``, ``weighting``, ``gamma`` as in
    ``DistillationOptions``; ``teacher_steps``: of the teacher of a consistency phase. ``teacher``: an inflated folder,
    the first phase's teacher where ``step.init`` is not that but a student to go on with; and, after ``"guidance"``,
    the next phase's, which then learns what is left of guidance together with its steps.
    """

    of: str
    phases: tuple[str, ...]
    updates: tuple[int, ...]
    step: dict[str, Any] = field(default_factory=dict)
    guidance_range: tuple[float, ...] = (1.0, 1.0)
    teacher_steps: int = 50
    teacher: str = ""
    weighting: str = "v"
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.of not in _START:
            raise InputError(f"options.of is {self.of!r}; what can be distilled is {', '.join(_START)}.")
        if len(self.updates) not in (1, len(self.phases)) or not self.phases:
            raise InputError(f"options.updates has {len(self.updates)} numbers for {len(self.phases)} phases.")
        if not self.step.get("init"):
            raise InputError("options.step.init is missing; name the folder of the teacher.")
        numbers = [int(phase) for phase in self.phases if phase.isdigit()]
        for phase in self.phases:
            if phase not in ("guidance", "consistency") and not (phase.isdigit() and int(phase) >= 1):
                raise InputError(f"options.phases has {phase!r}; use 'guidance', 'consistency' or a number of steps.")
        for before, after in pairwise(numbers):
            if after * 2 != before:
                raise InputError(f"options.phases goes from {before} to {after} steps; each phase halves their number.")


def phases_of(recipe: Recipe) -> list[Recipe]:
    """One recipe per phase; each begins where the one before it has exported."""
    options = parse_table(DistillOptions, recipe.options, "options")
    updates = options.updates * len(options.phases) if len(options.updates) == 1 else options.updates
    made, start, before = [], dict(options.step), ""
    for phase, count in zip(options.phases, updates, strict=True):
        folder = recipe.output_folder / phase
        method = phase if phase in ("guidance", "consistency") else "progressive"
        teacher = options.teacher if before in ("", "guidance") else ""
        table = {
            "of": options.of,
            "method": method,
            "num_inference_steps": int(phase) if phase.isdigit() else options.teacher_steps,
            "step": start,
            "guidance_range": list(options.guidance_range),
            "guided": bool(before) and not teacher,
            "teacher": teacher,
            "weighting": options.weighting,
            "gamma": options.gamma,
        }
        times = {
            "steps": count,
            "warmup_steps": min(recipe.train.warmup_steps, count // 4),
            "decay_steps": min(recipe.train.decay_steps, count // 2),
            "checkpoint_every": min(recipe.train.checkpoint_every, count),
            "seed": recipe.train.seed + len(made),
        }
        made.append(
            Recipe(
                f"{recipe.name}-{phase}",
                "distillation",
                recipe.about,
                recipe.data,
                replace(recipe.train, **times),
                table,
                str(folder),
            )
        )
        export = str(folder / "export" / _START[options.of])
        start = start | {"init": export}
        if start.get("trainable") == "all":
            start["image_model"] = export
        before = phase
    return made


def distill(recipe: Recipe, device: str | None = None, quiet: bool = False) -> list[Path]:
    """Run all phases of a recipe with ``step = "distill"``; returns their export folders.

    Raises:
        InputError: bad options, or as :func:`inflate.train.loop.train`.
    """
    if recipe.step != "distill":
        raise InputError(f"The recipe {recipe.name!r} has step {recipe.step!r}; `inflate distill` takes 'distill'.")
    exports = []
    for phase in phases_of(recipe):
        export = phase.output_folder / "export"
        exports.append(export if _is_done(phase, export) else train(phase, device, quiet))
    return exports


def _is_done(phase: Recipe, export: Path) -> bool:
    """Whether the phase ran to its end and exported."""
    kept = checkpoints(phase.output_folder / "state")
    finished = bool(kept) and kept[-1].name.endswith(f"{phase.train.steps:08d}")
    return finished and (export / "student_scheduler").is_dir()
