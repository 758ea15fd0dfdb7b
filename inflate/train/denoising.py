"""What every step that trains a denoising network does alike: a batch as a problem, noise, prediction, loss.

A step says once what its clean samples and conditions are (:meth:`DenoisingStep.problem`) and under which process they
become noisy; training and distillation follow from that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases import Encoding, drop
from inflate.diffusion.noise import mix_noise
from inflate.inflater import Scheme
from inflate.train.processes import Noised, Process, squared_errors
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class Problem:
    """A batch to denoise, the same for any network: a student and its teacher, a video model and its image model."""

    clean: Tensor  # (B, ...)
    noise: Tensor  # as clean, correlated between frames as the step's own
    call: Callable[..., Tensor]  # (network, noisy, timestep (B,), conditions, more arguments) -> prediction
    conditions: Encoding  # tensors of first size B
    unconditional: Encoding | None = None  # conditions of guidance's other branch, where there is one
    counts: Tensor | None = None  # broadcasts to clean: 1 where the loss looks, 0 elsewhere
    times: Tensor | None = None  # (B,) where they are drawn with the batch
    dropped: Tensor | None = None  # (B,) bool likewise: which are told the unconditional conditions


class DenoisingStep(ABC):
    """The part of a TrainStep between its data and its export."""

    trained: Any
    device: torch.device
    process: Process
    condition_dropout: float = 0.0
    unit: ClassVar[str]

    @abstractmethod
    def problem(self, batch: Batch) -> Problem:
        """What a batch of ``draw`` asks of a network; further random numbers come from torch's global generator."""

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted squared error of what the network predicts, averaged over the batch."""
        problem = self.problem(batch)
        noised = self.noised(problem)
        predicted = self.answer(problem, noised, self.trained)
        return StepLoss(squared_errors(predicted, noised, problem.counts).mean(), self.measures(problem, predicted))

    def noised(self, problem: Problem) -> Noised:
        """The problem's samples at its times, or at times drawn now."""
        times = problem.times
        if times is None:
            times = self.process.times(torch.rand(len(problem.clean), device=problem.clean.device))
        return self.process.noised(problem.clean, problem.noise, times)

    def answer(self, problem: Problem, noised: Noised, network: Any) -> Tensor:
        """What ``network`` predicts, some of the batch being told the unconditional conditions."""
        conditions = problem.conditions
        dropped = problem.dropped
        if dropped is None and self.condition_dropout:
            dropped = torch.rand(len(problem.clean), device=problem.clean.device) < self.condition_dropout
        if dropped is not None and problem.unconditional is not None:
            conditions = drop(conditions, problem.unconditional, dropped)
        return problem.call(network, noised.noisy, noised.timestep, conditions)

    def measures(self, problem: Problem, predicted: Tensor) -> dict[str, Tensor]:
        """Named scalars to show beside the loss."""
        return {}


def frame_noise(clean: Tensor, scheme: Scheme, fps: Tensor) -> Tensor:
    """Noise for clips (B, c, F, h, w), correlated between frames as ``scheme`` has it at their frame rates (B,)."""
    noise, shares = torch.randn_like(clean), torch.tensor([scheme.noise_share(rate) for rate in fps.tolist()])
    return mix_noise(noise, torch.randn_like(clean[:, :, :1]), shares) if bool(shares.any()) else noise
