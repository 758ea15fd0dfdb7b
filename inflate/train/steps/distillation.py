"""Distilling a trained network into one of fewer steps; any step that states its batches as a ``Problem`` can be.

One phase is one run of the loop; ``inflate.train.distill`` chains them. Each starts as a copy of its teacher:

- ``guidance``: one evaluation learns what classifier-free guidance takes two for, at scales that are an input
  (Meng et al., arXiv:2210.03142, section 3.1; Imagen Video, arXiv:2210.02303, section 2.7).
- ``progressive``: one DDIM step learns what two of the teacher's do (arXiv:2202.00512, algorithm 2).
- ``consistency``: all points of the teacher's path learn to point at its end (latent consistency models,
  arXiv:2310.04378, algorithm 1), the target being the student itself without gradient (arXiv:2310.14189).
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler
from torch import Tensor

from inflate.checkpoint import load
from inflate.diffusion.conversions import eps_from_v, eps_from_x, from_x, to_x
from inflate.diffusion.guidance import classifier_free
from inflate.diffusion.processes import ddim, distillation_target
from inflate.diffusion.schedules import Level, of_scheduler
from inflate.diffusion.weights import loss_weight
from inflate.errors import InputError, a, nearest
from inflate.inflater import InflatedModel, deflate, inflate
from inflate.schedulers import AngularDDIMScheduler
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.processes import DiffusionProcess, Noised, squared_errors
from inflate.train.recipe import Recipe, parse_table
from inflate.train.step import Batch, StepLoss, build_step

METHODS = ("guidance", "progressive", "consistency")
_SIGMA_DATA, _TIMESTEP_SCALING = 0.5, 10.0  # LCMScheduler's own, which samples from consistency students
_HUBER = 1e-3
# What of a teacher's scheduler decides which level a timestep is, and what is predicted there.
_SCHEDULE = (
    "num_train_timesteps",
    "prediction_type",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
)


@dataclass(frozen=True)
class DistillationOptions:
    """``of``: the step that trained the teacher, and ``step``: its options, with the teacher as its start.

    ``method``: one of ``METHODS``; ``num_inference_steps``: those of the student; for ``consistency``, the teacher's.
    ``guidance_range``: scales of guidance that the teacher is asked for, drawn evenly; one number twice needs no input
    of the student. ``guided``: whether the teacher answers with guidance already. ``teacher``: an inflated folder,
    where the student starts from another network than its teacher. ``weighting`` and ``gamma`` as in ``loss_weight``.
    """

    of: str
    method: str
    num_inference_steps: int
    step: dict[str, Any] = field(default_factory=dict)
    guidance_range: tuple[float, ...] = (1.0, 1.0)
    guided: bool = False
    teacher: str = ""
    weighting: str = "v"
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"options.method is {self.method!r}{nearest(self.method, METHODS)}; use {', '.join(METHODS)}."
            )
        if not 1 <= self.num_inference_steps <= 1000:
            raise InputError(f"options.num_inference_steps is {self.num_inference_steps}; use 1 to 1000.")
        if len(self.guidance_range) != 2 or not 0 <= self.guidance_range[0] <= self.guidance_range[1]:
            raise InputError(f"options.guidance_range is {self.guidance_range}; give [lowest, highest].")


def trailing_timesteps(num_inference_steps: int, num_train_timesteps: int) -> Tensor:
    """The timesteps of diffusers' "trailing" spacing in rising order, with -1, the clean end, before them."""
    numbers = torch.arange(num_inference_steps + 1, dtype=torch.float64)
    return (numbers * num_train_timesteps / num_inference_steps).round().long() - 1


class DistillationStep:
    """The TrainStep of a student."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(DistillationOptions, recipe.options, "options")
        inner = replace(recipe, step=self.options.of, options=self.options.step)
        step: Any = build_step(inner, device)
        if not isinstance(step, DenoisingStep) or not isinstance(step.process, DiffusionProcess):
            raise InputError(f"The step {self.options.of!r} cannot be distilled: it denoises nothing by diffusion.")
        self.inner: Any = step
        self.unit, self.device = step.unit, device
        scheduler = step.process.scheduler
        self.prediction_type = step.process.prediction_type
        self.num_train_timesteps = step.process.steps
        known = of_scheduler(scheduler)
        clean = torch.ones(1, dtype=torch.float64)
        # index t + 1 is timestep t; index 0 is the clean end
        self.levels = Level(torch.cat([clean, known.alpha]), torch.cat([1 - clean, known.sigma]))
        self.scheduler_config = dict(scheduler.config)
        teacher = load(self.options.teacher, dtype=torch.float32) if self.options.teacher else self.inner.trained
        self.teacher: Any = copy.deepcopy(teacher).to(device).requires_grad_(False).eval()
        self._learn_guidance()
        if recipe.train.compile:
            self.teacher.to(memory_format=torch.channels_last)
            self.teacher.compile()

    @property
    def trained(self) -> Any:
        """The student."""
        return self.inner.trained

    @property
    def ranges(self) -> bool:
        """Whether the scale of guidance varies, and so is an input of the student."""
        return self.options.guidance_range[0] < self.options.guidance_range[1]

    def _learn_guidance(self) -> None:
        """Give the student an input for the scale, which changes nothing yet."""
        if not self.ranges:
            return
        model = self.inner.trained
        if not isinstance(model, InflatedModel):
            raise InputError(
                f"options.guidance_range is {self.options.guidance_range}, and {a(type(model).__name__)} has no input "
                "for the scale; give one scale twice, or distil the inflated model."
            )
        low, high = self.options.guidance_range
        if model.scheme.guidance_range is not None:
            return
        temporal, scheme = model.temporal_state_dict(), model.scheme.changed(guidance_range=(low, high))
        frozen = not any(parameter.requires_grad for parameter in model.image_model.parameters())
        wider = inflate(deflate(model), scheme, model.num_frames)
        wider.load_temporal_state_dict(wider.temporal_state_dict() | temporal)
        if frozen:
            wider.freeze_image_model()
        self.inner.trained = wider

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """As the step that trained the teacher."""
        return self.inner.draw(update, first, batch_size)

    def __call__(self, batch: Batch) -> StepLoss:
        """The loss of the method, between what the student and the teacher say of the same noisy samples."""
        problem: Problem = self.inner.problem(batch)
        count, device = len(problem.clean), problem.clean.device
        low, high = self.options.guidance_range
        scale = low + (high - low) * torch.rand(count, device=device)
        steps = self.options.num_inference_steps
        if self.options.method == "guidance":
            timestep = torch.randint(0, self.num_train_timesteps, (count,), device=device)
            noisy = self._noisy(problem, timestep)
            with torch.no_grad():
                target = self._guided(problem, noisy, timestep, scale)
            made = self._student(problem, noisy, timestep, scale)
            return StepLoss(self._loss(made, target, noisy, timestep, problem))
        grid = trailing_timesteps(steps, self.num_train_timesteps).to(device)
        number = torch.randint(1, steps + 1, (count,), device=device)
        timestep, earlier = grid[number], grid[number - 1]
        noisy = self._noisy(problem, timestep)
        if self.options.method == "consistency":
            return self._consistency(problem, noisy, timestep, earlier, scale)
        between = trailing_timesteps(2 * steps, self.num_train_timesteps).to(device)[2 * number - 1]
        with torch.no_grad():
            halfway = self._teacher_step(problem, noisy, timestep, between, scale)
            there = self._teacher_step(problem, halfway, between, earlier, scale)
            x = distillation_target(noisy.double(), there.double(), self._at(earlier), self._at(timestep))
            target = from_x(noisy.double(), x, self._at(timestep), self.prediction_type).float()
        made = self._student(problem, noisy, timestep, scale)
        return StepLoss(self._loss(made, target, noisy, timestep, problem))

    def _at(self, timestep: Tensor) -> Level:
        index = timestep.cpu() + 1
        return Level(self.levels.alpha[index].to(timestep.device), self.levels.sigma[index].to(timestep.device))

    def _noisy(self, problem: Problem, timestep: Tensor) -> Tensor:
        at = self._at(timestep).like(problem.clean)
        return at.alpha * problem.clean + at.sigma * problem.noise

    def _teacher(self, problem: Problem, noisy: Tensor, timestep: Tensor, scale: Tensor) -> Tensor:
        """The teacher's prediction with guidance: from inside it, or from two evaluations."""
        if not self.options.guided:
            return self._guided(problem, noisy, timestep, scale)
        more = self._scale_argument(self.teacher, scale)
        return problem.call(self.teacher, noisy, timestep, problem.conditions, **more).float()

    def _guided(self, problem: Problem, noisy: Tensor, timestep: Tensor, scale: Tensor) -> Tensor:
        given = problem.call(self.teacher, noisy, timestep, problem.conditions).float()
        if problem.unconditional is None or not bool((scale != 1).any()):
            return given
        other = problem.call(self.teacher, noisy, timestep, problem.unconditional).float()
        return classifier_free(other, given, scale.reshape(-1, *[1] * (given.ndim - 1)))

    def _student(self, problem: Problem, noisy: Tensor, timestep: Tensor, scale: Tensor) -> Tensor:
        more = self._scale_argument(self.trained, scale)
        return problem.call(self.trained, noisy, timestep, problem.conditions, **more).float()

    @staticmethod
    def _scale_argument(network: Any, scale: Tensor) -> dict[str, Tensor]:
        known = isinstance(network, InflatedModel) and network.scheme.guidance_range is not None
        return {"guidance_scale": scale} if known else {}

    def _teacher_step(
        self, problem: Problem, noisy: Tensor, timestep: Tensor, earlier: Tensor, scale: Tensor
    ) -> Tensor:
        """One DDIM step of the teacher."""
        made = self._teacher(problem, noisy, timestep.clamp_min(0), scale)
        at, z = self._at(timestep), noisy.double()
        x = to_x(z, made.double(), at, self.prediction_type)
        is_v = self.prediction_type == "v_prediction"
        eps = eps_from_v(z, made.double(), at) if is_v else eps_from_x(z, x, at)
        return ddim(z, x, eps, self._at(earlier)).float()

    def _loss(self, made: Tensor, target: Tensor, noisy: Tensor, timestep: Tensor, problem: Problem) -> Tensor:
        weight = torch.ones(len(made), device=made.device)
        if self.prediction_type == "v_prediction":
            snr, options = self._at(timestep).snr.float(), self.options
            weight = loss_weight(snr, options.weighting, self.prediction_type, options.gamma)
        return squared_errors(made, Noised(noisy, target, timestep, weight), problem.counts).mean()

    def _consistency(
        self, problem: Problem, noisy: Tensor, timestep: Tensor, earlier: Tensor, scale: Tensor
    ) -> StepLoss:
        with torch.no_grad():
            there = self._teacher_step(problem, noisy, timestep, earlier, scale)
            target = self._end(problem, there, earlier, scale)
        made = self._end(problem, noisy, timestep, scale)
        error = (made - target).square()
        if problem.counts is not None:
            error = error * problem.counts
        return StepLoss(((error + _HUBER**2).sqrt() - _HUBER).mean())

    def _end(self, problem: Problem, noisy: Tensor, timestep: Tensor, scale: Tensor) -> Tensor:
        """The consistency function: what LCMScheduler takes for the clean sample."""
        made = self._student(problem, noisy, timestep.clamp_min(0), scale)
        x = to_x(noisy, made, self._at(timestep), self.prediction_type)
        scaled = (timestep.clamp_min(0) * _TIMESTEP_SCALING).float().reshape(-1, *[1] * (noisy.ndim - 1))
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        out = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
        end = torch.where(self._clean(timestep, noisy), noisy, skip * noisy + out * x)
        return end

    @staticmethod
    def _clean(timestep: Tensor, like: Tensor) -> Tensor:
        return (timestep < 0).reshape(-1, *[1] * (like.ndim - 1))

    def sheet(self, path: Path) -> None:
        """As the step that trained the teacher draws it."""
        self.inner.sheet(path)

    def export(self, folder: Path) -> None:
        """As the step that trained the teacher, and ``scheduler/`` whose config holds the number of steps."""
        self.inner.export(folder)
        student_scheduler(self.scheduler_config, self.options).save_pretrained(folder / "student_scheduler")


def student_scheduler(config: dict[str, Any], options: DistillationOptions) -> Any:
    """The scheduler that a student samples with, from its teacher's config."""
    kept: dict[str, Any] = {name: config[name] for name in _SCHEDULE if config.get(name) is not None}
    kept = {"beta_schedule": "squaredcos_cap_v2"} | kept
    if options.method == "consistency":
        return LCMScheduler(**kept, original_inference_steps=options.num_inference_steps, clip_sample=False)
    return AngularDDIMScheduler(**kept, timestep_spacing="trailing", num_inference_steps=options.num_inference_steps)


def build(recipe: Recipe, device: torch.device) -> DistillationStep:
    """The step a recipe with ``step = "distillation"`` trains."""
    return DistillationStep(recipe, device)
