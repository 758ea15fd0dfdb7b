"""The loss on clips held out by video, at fixed noise and noise levels: the video model beside its image model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inflate.staging import write_whole
from inflate.train.processes import Process, squared_errors

LEVELS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)


@dataclass(frozen=True)
class HeldOutClip:
    """One clip: latents and noise (1, c, F, h, w), what the network is told, and its frame rate."""

    clean: Tensor
    noise: Tensor
    arguments: dict[str, Any]
    fps: float


Predict = Callable[[Tensor, Tensor, dict[str, Any], float], Tensor]
"""(noisy (1, c, F, h, w), timestep (1,), arguments, fps) -> prediction."""


@torch.no_grad()
def held_out_losses(clips: Sequence[HeldOutClip], process: Process, predict: Predict) -> dict[float, float]:
    """The mean squared error of what the network predicts at each of ``LEVELS`` of the noise scale, over all clips."""
    losses: dict[float, float] = {}
    for level in LEVELS:
        errors = []
        for clip in clips:
            times = process.levels(torch.full((1,), level, device=clip.clean.device))
            noised = process.noised(clip.clean, clip.noise, times)
            errors.append(
                float(squared_errors(predict(noised.noisy, noised.timestep, clip.arguments, clip.fps), noised))
            )
        losses[level] = sum(errors) / len(errors)
    return losses


class Reference:
    """The image model's held-out losses, frame by frame: measured before training and kept beside the run, since the
    image model may train too (LoRA, ``trainable = "all"``)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def losses(self, key: str, measure: Callable[[], dict[float, float]]) -> dict[float, float]:
        """What was measured for the same ``key`` (data and model), or what ``measure`` says now."""
        if self.path.is_file():
            try:
                kept = json.loads(self.path.read_text(encoding="utf-8"))
                if kept["key"] == key:
                    return {float(level): float(loss) for level, loss in kept["losses"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # cut short or of another version: measured again
        losses = measure()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, (json.dumps({"key": key, "losses": losses}, indent=2) + "\n").encode())
        return losses
