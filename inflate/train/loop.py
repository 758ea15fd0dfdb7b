"""The training loop: accelerate for devices and precision, AdamW, EMA, exact resume, progress, sheets."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from inflate.errors import InputError
from inflate.train.recipe import Recipe
from inflate.train.state import load_state, save_state
from inflate.train.step import StepLoss, TrainStep, build_step


def train(recipe: Recipe, device: str | None = None, quiet: bool = False) -> Path:
    """Run a recipe to its end, from its last checkpoint if there is one; returns the export folder.

    The run folder (``recipe.output_folder``) holds ``recipe.json`` (resolved), ``log.jsonl``, ``state/``,
    ``sheets/`` and ``export/``. Started again with the same recipe, a run that was killed ends with the same weights,
    bit for bit on one CPU, as one that was never killed: batches and noise are functions of (seed, update), not of what
    ran before.

    Raises:
        InputError: bad options or data, or the folder holds the state of another recipe.
    """
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=recipe.train.mixed_precision,
        gradient_accumulation_steps=recipe.train.gradient_accumulation_steps,
    )
    folder = recipe.output_folder
    if accelerator.is_main_process:
        _keep_recipe(folder, recipe)
    return _Run(recipe, build_step(recipe, accelerator.device), accelerator, quiet).run()


def _keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, or check that the one already there asks for the same training."""
    folder.mkdir(parents=True, exist_ok=True)
    path, resolved = folder / "recipe.json", recipe.resolved()
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        for section in ("step", "data", "options"):
            if before.get(section) != resolved[section]:
                raise InputError(
                    f"{folder} holds a run whose [{section}] differs from this recipe's; "
                    "choose another `output` or delete the folder."
                )
    path.write_text(json.dumps(resolved, indent=2) + "\n", encoding="utf-8")


class _Wrapped(nn.Module):
    """The step as a module, so that accelerate's data-parallel wrapper sees its forward pass and its parameters."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__()
        self.trained = step.trained
        self._step = [step]  # a list keeps frozen networks of the step out of this module's parameters

    def forward(self, batch: dict[str, Any]) -> StepLoss:
        return self._step[0](batch)


def _parameter_groups(parameters: dict[str, nn.Parameter], scales: dict[str, float]) -> list[dict[str, Any]]:
    """One group per learning-rate factor; the longest prefix that a parameter's name starts with decides."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    unused = set(scales)
    for name, value in parameters.items():
        fitting = [prefix for prefix in scales if name.startswith(prefix)]
        unused -= set(fitting)
        groups.setdefault(float(scales[max(fitting, key=len)]) if fitting else 1.0, []).append(value)
    if unused:
        names = ", ".join(sorted({name.split(".")[0] for name in parameters}))
        raise InputError(
            f"train.learning_rate_scale names {sorted(unused)[0]!r}, with which no trained parameter's name starts; "
            f"they start with {names}."
        )
    return [{"params": values, "scale": scale} for scale, values in groups.items() if values]


class _Run:
    def __init__(self, recipe: Recipe, step: TrainStep, accelerator: Accelerator, quiet: bool) -> None:
        self.recipe, self.step, self.accelerator, self.options = recipe, step, accelerator, recipe.train
        self.folder, self.quiet = recipe.output_folder, quiet
        step.trained.to(accelerator.device)
        self.parameters = {n: p for n, p in step.trained.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError(f"The recipe {recipe.name!r} leaves nothing to train; check `trainable`.")
        optimizer = torch.optim.AdamW(
            _parameter_groups(self.parameters, self.options.learning_rate_scale),
            lr=self.options.learning_rate,
            betas=(0.9, self.options.beta2),
            weight_decay=self.options.weight_decay,
            fused=True,
        )
        self.ema = EMAModel(list(self.parameters.values()), decay=self.options.ema_decay)
        self.start = load_state(self.folder / "state", self.parameters, optimizer, self.ema)
        if self.options.compile:
            step.trained.to(memory_format=torch.channels_last)
            step.trained.compile()
        self.model, self.optimizer = accelerator.prepare(_Wrapped(step), optimizer)

    def run(self) -> Path:
        console = Console(quiet=self.quiet or not self.accelerator.is_main_process)
        if self.start:
            console.print(f"Resuming {self.recipe.name} after update {self.start} of {self.options.steps}.")
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} updates"),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(
                self.recipe.name, total=self.options.steps, completed=self.start, shown="", start=True
            )
            for update in range(self.start, self.options.steps):
                begun = time.perf_counter()
                loss = self._update(update)
                if (update + 1) % self.options.log_every == 0 or update + 1 == self.options.steps:
                    shown = self._log(update, loss, time.perf_counter() - begun)
                    progress.update(task, shown=shown)
                progress.update(task, completed=update + 1)
                self._keep(update + 1)
        return self._finish()

    def _update(self, update: int) -> StepLoss:
        """One optimizer update; every random number in it follows from (seed, update, accumulation, process)."""
        self.step.trained.train()
        accumulation = self.options.gradient_accumulation_steps
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * self.options.learning_rate_at(update)
        loss = None
        for micro in range(accumulation):
            part = micro * self.accelerator.num_processes + self.accelerator.process_index
            seed = np.random.SeedSequence((self.options.seed, update, part))
            torch.manual_seed(int(seed.generate_state(1)[0]))
            batch = self.step.draw(update, part * self.options.batch_size, self.options.batch_size)
            with self.accelerator.accumulate(self.model), self.accelerator.autocast():
                loss = self.model(batch)
                self.accelerator.backward(loss.total)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.parameters.values(), self.options.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        assert loss is not None
        if not torch.isfinite(loss.total.detach()):
            raise InputError(
                f"The loss of {self.recipe.name!r} became {float(loss.total.detach())} at update {update}; "
                "lower train.learning_rate and start again from the last checkpoint."
            )
        self.ema.step(list(self.parameters.values()))
        return loss

    def _log(self, update: int, loss: StepLoss, seconds: float) -> str:
        per_second = self.options.batch_size * self.options.gradient_accumulation_steps / max(seconds, 1e-9)
        values = {"loss": float(loss.total.detach())} | {k: float(v.detach()) for k, v in loss.parts.items()}
        if self.accelerator.is_main_process:
            line = {"update": update + 1, "seconds": round(time.time(), 1), f"{self.step.unit}_per_second": per_second}
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line | values) + "\n")
        return f"loss {values['loss']:.4f}  {per_second:.1f} {self.step.unit}/s"

    def _keep(self, done: int) -> None:
        if not self.accelerator.is_main_process:
            return
        if done % self.options.checkpoint_every == 0 or done == self.options.steps:
            save_state(self.folder / "state", done, self.parameters, self.optimizer, self.ema)
        if self.options.sample_every and done % self.options.sample_every == 0:
            self._with_average(lambda: self.step.sheet(self.folder / "sheets" / f"{done:08d}.png"))

    def _with_average(self, action: Any) -> None:
        """Run ``action`` with the averaged weights in place, then put the trained ones back."""
        values = list(self.parameters.values())
        self.ema.store(values)
        self.ema.copy_to(values)
        self.step.trained.eval()
        try:
            # Sheets have shapes of their own, each of which would be compiled for a minute and then thrown away.
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                action()
        finally:
            self.ema.restore(values)

    def _finish(self) -> Path:
        export = self.folder / "export"
        if self.accelerator.is_main_process:
            self._with_average(lambda: self.step.export(export))
            self._with_average(lambda: self.step.sheet(self.folder / "sheets" / "final.png"))
        self.accelerator.wait_for_everyone()
        return export
