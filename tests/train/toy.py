"""A train step that takes milliseconds: a line through noisy points, with all that the loop can ask of a step."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions
from inflate.train.step import TRAIN_STEPS, StepLoss

SETTINGS: dict[str, Any] = {
    "steps": 12,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "ema_decay": 0.5,
    "log_every": 1,
    "checkpoint_every": 5,
    "sample_every": 0,
    "validate_every": 0,
}


class ToyStep:
    """`options`: `noise` (std of noise in the loss), and `width`; and by their numbers the updates `at` which it sends
    itself a `signal`, whose loss is `bad`, that is no number, whose gradient is too `huge` for fp16, and after whose
    loss a weight is `blown` up to infinity."""

    unit = "points"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options, self.device, self.update = recipe.options, device, -1
        torch.manual_seed(recipe.train.seed)
        width = self.options.get("width", 3)
        self.trained: Any = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))
        self.sampled: list[str] = []

    def draw(self, update: int, first: int, batch_size: int) -> dict[str, Tensor]:
        self.update = update
        points = []
        for number in range(first, first + batch_size):
            points.append(torch.randn(8, generator=torch.Generator().manual_seed(1000 * update + number)))
        return {"x": torch.stack(points)}

    def __call__(self, batch: dict[str, Tensor]) -> StepLoss:
        if self.options.get("at", -1) == self.update:
            os.kill(os.getpid(), getattr(signal, self.options["signal"]))
        x = batch["x"].to(self.device)
        noise = self.options.get("noise", 0.0)
        x = x + noise * torch.randn_like(x) if noise else x
        loss = (self.trained(x) - x.sum(1, keepdim=True)).square().mean()
        if self.options.get("huge", -1) == self.update:
            loss = loss * 1e36  # finite, but not its scaled gradient
        if self.options.get("bad", -1) == self.update:
            loss = loss * float("nan")
        if self.options.get("blown", -1) == self.update:
            with torch.no_grad():
                self.trained[0].bias.fill_(float("inf"))
        return StepLoss(loss, {"half": loss / 2})

    def sheet(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sheet")

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file(
            {name: value.detach().clone() for name, value in self.trained.state_dict().items()},
            folder / "w.safetensors",
        )


class TalkingStep(ToyStep):
    """The same, with the optional members."""

    def validate(self) -> dict[str, float]:
        x = torch.randn(64, 8, generator=torch.Generator().manual_seed(7))
        return {
            "validation_loss": float((self.trained(x) - x.sum(1, keepdim=True)).square().mean()),
            "image_model_loss": 8.0,
        }

    def samples(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"clip")

    def facts(self) -> dict[str, float]:
        return {"temporal_change": 0.1, "sample_motion": self.options.get("motion", 1.0), "data_motion": 1.0}

    def advice(self) -> list[str]:
        return ["A sentence about the data."]

    def next_steps(self, export: Path) -> str:
        return f"Now type: inflate generate --model {export}"


TRAIN_STEPS["toy"] = f"{__name__}:ToyStep"
TRAIN_STEPS["talking-toy"] = f"{__name__}:TalkingStep"


def toy_recipe(output: Path, options: dict[str, Any] | None = None, step: str = "toy", **changes: Any) -> Recipe:
    about = About("a test", "none", "CPU", "seconds", "none")
    train = TrainOptions(**(SETTINGS | changes))
    return Recipe("toy", step, about, DataOptions("nowhere"), train, options or {}, str(output))
