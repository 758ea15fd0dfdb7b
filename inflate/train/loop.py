"""The training loop: accelerate for devices and precision, AdamW, EMA, exact resume, progress, sheets."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.training_utils import EMAModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from inflate.checkpoint.writing import give_usual_permissions, wait_for_disk
from inflate.errors import InputError, StoppedError
from inflate.staging import put_in_place, staged
from inflate.train.changes import keep_recipe
from inflate.train.checking import check_recipe, place_folders
from inflate.train.guards import StopRequest, only_process, stop_at_once, stop_requests
from inflate.train.log import check_trackers
from inflate.train.optimizers import build_optimizer
from inflate.train.recipe import Recipe
from inflate.train.reporting import Reporter
from inflate.train.state import check_finite, checkpoints, load_state, save_state, updates_done
from inflate.train.step import QUIET, Samples, SaysNext, StepLoss, TrainStep, Validates, build_step

T = TypeVar("T")
Say = Callable[[str], None]

# GradScaler halves its scale at each update with infinite gradients: from 2^16 to 2^-34, which no gradient survives.
_MAX_SKIPPED = 50


def train(recipe: Recipe, device: str | None = None, quiet: bool = False) -> Path:
    """Run a recipe to its end, from its last checkpoint if there is one; returns the export folder.

    The run folder (``recipe.output_folder``) holds ``recipe.json`` (resolved), ``log.jsonl``, ``diagnosis.json``,
    ``state/``, ``sheets/`` or ``samples/``, and ``export/``. Started again with the same recipe, a run that was killed
    ends with the same weights, bit for bit on one CPU, as one that was never killed: batches and noise are functions of
    (seed, update), not of what ran before.

    Raises:
        InputError: bad options or data, the folder holds the state of another recipe or is in use, or the loss or its
            gradients are no longer numbers.
        StoppedError: SIGTERM or Ctrl-C; the state, or what was encoded, is saved.
    """
    if device not in (None, "cpu"):
        raise InputError(f"--device is {device!r}; give cpu, or leave it out to use the GPU.")
    check_trackers(recipe.train.trackers)
    check_recipe(recipe)
    accelerator = _accelerator(recipe, device)
    console = Console(quiet=quiet or not accelerator.is_main_process)
    folder = recipe.output_folder

    def say(sentence: str) -> None:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    with only_process(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            for sentence in keep_recipe(folder, recipe, updates_done(folder / "state")):
                say(sentence)
        stopped = f"Stopped while {recipe.name} was prepared; the same command goes on, and what was encoded is kept."
        token = QUIET.set(console.quiet)
        try:
            with stop_at_once(stopped):
                step = build_step(place_folders(recipe), accelerator.device)
        finally:
            QUIET.reset(token)
        run = _Run(recipe, step, accelerator, console, say)
        with stop_requests() as stop:
            return run.run(stop)


def _accelerator(recipe: Recipe, device: str | None) -> Accelerator:
    # accelerate keeps one state for the process; a run before this one may have had another precision.
    AcceleratorState._reset_state()
    precision = recipe.train.mixed_precision
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=precision,
            gradient_accumulation_steps=recipe.train.gradient_accumulation_steps,
            log_with=list(recipe.train.trackers) or None,
            project_config=ProjectConfiguration(logging_dir=str(recipe.output_folder / "trackers")),
        )
    except ValueError as error:
        if "mixed precision" not in str(error):
            raise
        raise InputError(
            f"train.mixed_precision = {precision!r} does not work on this device ({error}); use another."
        ) from error
    if precision == "fp16" and accelerator.scaler is None:  # accelerate would train in float32 and say nothing
        raise InputError(
            f"train.mixed_precision = 'fp16' needs a GPU, and this run is on the {accelerator.device.type}; "
            "use 'bf16' or 'no'."
        )
    return accelerator


class _Wrapped(nn.Module):
    """The step as a module, so that accelerate's data-parallel wrapper sees its forward pass and its parameters."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__()
        self.trained = step.trained
        self._step = [step]  # a list keeps frozen networks of the step out of this module's parameters

    def forward(self, batch: dict[str, Any]) -> StepLoss:
        return self._step[0](batch)


def _checkpoint_gradients(trained: nn.Module) -> None:
    """Switch gradient checkpointing on in every diffusers model inside ``trained``."""
    able = [m for m in trained.modules() if getattr(m, "_supports_gradient_checkpointing", False)]
    if not able:
        raise InputError(
            f"train.gradient_checkpointing is true, and {type(trained).__name__} has no model that can do it; "
            "set it to false."
        )
    for module in able:
        module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]  # diffusers' ModelMixin


class _Run:
    def __init__(self, recipe: Recipe, step: TrainStep, accelerator: Accelerator, console: Console, say: Say) -> None:
        self.recipe, self.step, self.accelerator, self.options = recipe, step, accelerator, recipe.train
        self.folder, self.console, self.say = recipe.output_folder, console, say
        self.main, self.skipped = accelerator.is_main_process, 0
        step.trained.to(accelerator.device)
        self.parameters = {n: p for n, p in step.trained.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError(f"The recipe {recipe.name!r} leaves nothing to train; check `trainable`.")
        self._check_precision()
        if self.options.gradient_checkpointing:
            _checkpoint_gradients(step.trained)
        optimizer = build_optimizer(self.options, self.parameters)
        self.ema = EMAModel(list(self.parameters.values()), decay=self.options.ema_decay)
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler
        self.start = load_state(self.folder / "state", self.parameters, optimizer, self.ema, self.scaler, say)
        if self.options.compile:
            step.trained.to(memory_format=torch.channels_last)
            step.trained.compile()
        self.model, self.optimizer = accelerator.prepare(_Wrapped(step), optimizer)
        self.reporter = Reporter(recipe, step, accelerator, self.start, say) if self.main else None

    def _check_precision(self) -> None:
        for name, value in self.parameters.items():
            if self.options.mixed_precision == "fp16" and value.dtype == torch.float16:
                raise InputError(
                    f"train.mixed_precision = 'fp16' keeps trained weights in float32, and {name} is float16; load it "
                    "in float32."
                )

    def run(self, stop: StopRequest) -> Path:
        if self.start:
            self.say(f"Resuming {self.recipe.name} after update {self.start} of {self.options.steps}.")
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} updates"),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        try:
            with Progress(*columns, console=self.console) as progress:
                task = progress.add_task(
                    self.recipe.name, total=self.options.steps, completed=self.start, shown="", start=True
                )
                if not self.start:
                    self._validate_at_start()
                for update in range(self.start, self.options.steps):
                    begun = time.perf_counter()
                    values = self._update(update)
                    values |= self._pace(time.perf_counter() - begun)
                    progress.update(task, shown=f"loss {values['loss']:.4f}  {self._said_pace(values)}")
                    progress.update(task, completed=update + 1)
                    self._keep(update + 1, values, stop)
            return self._finish()
        finally:
            if self.reporter:
                self.reporter.close()

    def _pace(self, seconds: float) -> dict[str, float]:
        items = self.options.batch_size * self.options.gradient_accumulation_steps * self.accelerator.num_processes
        return {f"{self.step.unit}_per_second": items / max(seconds, 1e-9)}

    def _said_pace(self, values: dict[str, float]) -> str:
        return f"{values[f'{self.step.unit}_per_second']:.1f} {self.step.unit}/s"

    def _update(self, update: int) -> dict[str, float]:
        """One optimizer update; every random number in it follows from (seed, update, accumulation, process).

        Returns:
            The mean loss over the accumulation (and processes), its parts, the learning rate, the gradient's norm.
        """
        self.step.trained.train()
        accumulation = self.options.gradient_accumulation_steps
        rate = self.options.learning_rate_at(update)
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate
        sums: dict[str, Tensor] = {}
        norm = math.nan
        for micro in range(accumulation):
            part = micro * self.accelerator.num_processes + self.accelerator.process_index
            seed = np.random.SeedSequence((self.options.seed, update, part))
            set_seed(int(seed.generate_state(1)[0]))
            batch = self.step.draw(update, part * self.options.batch_size, self.options.batch_size)
            with self.accelerator.accumulate(self.model), self.accelerator.autocast():
                loss = self.model(batch)
                for name, value in ({"loss": loss.total} | loss.parts).items():
                    sums[name] = sums.get(name, 0.0) + value.detach().float() / accumulation
                self.accelerator.backward(loss.total)  # divided by the accumulation there
                if self.accelerator.sync_gradients:
                    clipped = self.accelerator.clip_grad_norm_(self.parameters.values(), self.options.max_grad_norm)
                    norm = float(clipped) if clipped is not None else math.nan
                    if self.accelerator.num_processes > 1:
                        sums = cast(dict[str, Tensor], self.accelerator.reduce(sums, reduction="mean"))
                    self._check_numbers(update, sums["loss"], norm, rate)
                self._step()
        values = {name: float(value) for name, value in sums.items()}
        return values | {"learning_rate": rate, "gradient_norm": norm}

    def _step(self) -> None:
        """The optimizer's update at the end of an accumulation, and the average's, unless fp16's scaler skipped it."""
        scale = self.scaler.get_scale() if self.scaler is not None else 1.0
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.accelerator.sync_gradients:
            return
        if self.scaler is not None and self.scaler.get_scale() < scale:
            self.skipped += 1
            if self.skipped >= _MAX_SKIPPED:
                raise InputError(
                    f"The float16 gradients of {self.recipe.name!r} were not finite in {self.skipped} updates in a "
                    "row; set train.mixed_precision to 'bf16' or 'no'."
                )
            return
        self.skipped = 0
        self.ema.step(list(self.parameters.values()))

    def _check_numbers(self, update: int, loss: Tensor, norm: float, rate: float) -> None:
        """Stop before the weights change, where the loss or its gradient is not a number. fp16's scaler skips such an
        update and halves the scale, which is why a few of them are its ordinary way."""
        value = float(loss)
        if self.scaler is not None or (math.isfinite(value) and math.isfinite(norm)):
            return
        what = f"loss of {self.recipe.name!r} became {value}"
        if math.isfinite(value):
            what = f"gradient of {self.recipe.name!r} became {norm}"
        sentence = (
            f"The {what} at update {update + 1}; lower train.learning_rate (it is {rate:.1g}) and start again: "
            "the run goes on from its last checkpoint."
        )
        if self.reporter:
            values = {"loss": value, "gradient_norm": norm, "learning_rate": rate, "stopped": sentence}
            self.reporter.line(update + 1, values)
            self.reporter.diagnose(update + 1)
        raise InputError(sentence)

    def _due(self, every: int, done: int, at_end: bool = True) -> bool:
        return bool(every) and (done % every == 0 or (at_end and done == self.options.steps))

    def _keep(self, done: int, values: dict[str, float], stop: StopRequest) -> None:
        """What follows an update: validation, a line of the log, a checkpoint, samples, the diagnosis."""
        stopped = bool(stop)
        if self.accelerator.num_processes > 1:  # all of them leave after the same update
            if stop:
                self.accelerator.set_trigger()
            stopped = self.accelerator.check_trigger()
        if self.reporter:
            validated = self._validation(done)
            if validated or self._due(self.options.log_every, done):
                self.reporter.line(done, values | validated | self.reporter.facts())
            saved = stopped or self._due(self.options.checkpoint_every, done)
            if saved:
                self._save(done)
            sampled = not stopped and self._due(self.options.sample_every, done, at_end=False)
            if sampled:
                self._with_average(lambda: self._sample(f"{done:08d}"))
            if validated or saved or sampled:
                self.reporter.diagnose(done)
        if stopped:
            raise StoppedError(
                f"Stopped after update {done} of {self.options.steps} of {self.recipe.name}, and saved it; the same "
                "command goes on from there.",
                stop.signal_number or signal.SIGTERM,
            )

    def _save(self, done: int) -> None:
        save_state(
            self.folder / "state",
            done,
            self.parameters,
            self.optimizer,
            self.ema,
            self.scaler,
            self.options.keep_checkpoints,
        )

    def _validate_at_start(self) -> None:
        """The held-out loss before the first update, with which the later ones are compared."""
        if self.reporter and (validated := self._validation(0)):
            self.reporter.line(0, validated | self.reporter.facts())

    def _validation(self, done: int) -> dict[str, float]:
        if isinstance(self.step, Validates) and self._due(self.options.validate_every, done):
            return self._with_average(self.step.validate)
        return {}

    def _sample(self, name: str) -> None:
        if isinstance(self.step, Samples):
            self.step.samples(self.folder / "samples" / name)
        else:
            self.step.sheet(self.folder / "sheets" / f"{name}.png")

    def _with_average(self, action: Callable[[], T]) -> T:
        """Run ``action`` with the averaged weights in place, then put the trained ones back."""
        values = list(self.parameters.values())
        self.ema.store(values)
        self.ema.copy_to(values)
        self.step.trained.eval()
        try:
            # Sheets have shapes of their own, each of which would be compiled for a minute and then thrown away.
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                return action()
        finally:
            self.ema.restore(values)

    def _finish(self) -> Path:
        export = self.folder / "export"
        if self.reporter:
            self._check_average()
            self._with_average(lambda: self._export(export))
            self._with_average(lambda: self._sample("final"))
            self.reporter.diagnose(self.options.steps, last=True)
            if isinstance(self.step, SaysNext):
                self.say(self.step.next_steps(export))
        self.accelerator.wait_for_everyone()
        return export

    def _check_average(self) -> None:
        """The last updates may have come after the last checkpoint; what is exported must be numbers all the same."""
        found = checkpoints(self.folder / "state")
        kept = f"nothing was exported, and the newest checkpoint is {found[-1]}" if found else "nothing was exported"
        check_finite(dict(zip(self.parameters, self.ema.shadow_params, strict=True)), kept)

    def _export(self, export: Path) -> None:
        """A killed export is never taken for one."""
        with staged(export) as folder:
            made = folder / export.name  # which steps make themselves
            self.step.export(made)
            give_usual_permissions(made)
            wait_for_disk(made)
            put_in_place(made, export)
