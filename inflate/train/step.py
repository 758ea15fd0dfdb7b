"""What a stage brings to the loop: its inputs, its loss, its sheet and its export; never a loop of its own."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from inflate.errors import InputError, nearest
from inflate.train.recipe import Recipe

Batch = dict[str, Any]
QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether the run is to say nothing, for what a step does at length while it is built (encoding)."""


@dataclass(frozen=True)
class StepLoss:
    """The scalar to descend and named scalars to show."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class TrainStep(Protocol):
    """One trainable stage as the loop sees it. Calling it with a batch gives a :class:`StepLoss`."""

    trained: nn.Module
    """The network whose parameters with ``requires_grad`` are optimised, averaged and saved."""
    unit: str
    """What one element of a batch is, for the progress bar: ``images`` or ``clips``."""

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Items ``first`` to ``first + batch_size`` of an update, on the CPU; a function of its arguments and the seed
        alone, so that a resumed run sees the same batches."""
        ...

    def __call__(self, batch: Batch) -> StepLoss:
        """The loss; random numbers come from torch's global generator, which the loop seeds per update."""
        ...

    def sheet(self, path: Path) -> None:
        """Write a PNG that shows what the network does now."""
        ...

    def export(self, folder: Path) -> None:
        """Write the trained network as users load it."""
        ...


# What a step may have beside a TrainStep's members; the loop asks `isinstance(step, Validates)` and so on.


@runtime_checkable
class Validates(Protocol):
    """A step with clips held out."""

    def validate(self) -> dict[str, float]:
        """Losses at fixed noise and timesteps, such as ``validation_loss`` and ``image_model_loss``; the averaged
        weights are in place, and no gradient is kept."""
        ...


@runtime_checkable
class Samples(Protocol):
    """A step that writes more than one sheet."""

    def samples(self, folder: Path) -> None:
        """Write generated clips and a sheet into ``folder``; the averaged weights are in place."""
        ...


@runtime_checkable
class StatesFacts(Protocol):
    """A step that tells the diagnosis what it knows (the names are in :mod:`inflate.train.diagnosis`)."""

    def facts(self) -> dict[str, float]:
        """Cheap numbers for a line of the log."""
        ...


@runtime_checkable
class Advises(Protocol):
    """A step that knows something about the data before the training begins."""

    def advice(self) -> list[str]:
        """Sentences to print at the start."""
        ...


@runtime_checkable
class SaysNext(Protocol):
    """A step that knows what to do with its export."""

    def next_steps(self, export: Path) -> str:
        """What to type next."""
        ...


# name -> "module:function"; the function takes a Recipe and a device and returns a TrainStep.
TRAIN_STEPS: dict[str, str] = {
    "autoencoder": "emoji_family.training.autoencoder_dc:build",
    "clip": "emoji_family.training.clip:build",
    "prior": "inflate.train.steps.prior:build",
    "decoder": "inflate.train.steps.decoder:build",
    "video": "inflate.train.steps.video:build",
    "video-decoder": "inflate.train.steps.video_decoder:build",
    "interpolation": "interp.training.interpolation:build_interpolation",
    "frame-decoder": "interp.training.frame_decoder:build_frame_decoder",
    "image-super-resolution": "superres.training:build_image",
    "video-super-resolution": "superres.training:build_video",
    "autoencoder-kl": "emoji_family.training.autoencoder_kl:build",
    "text-encoder": "emoji_family.training.text_encoder:build",
    "text-to-image": "emoji_family.training.text_to_image:build",
    "distillation": "inflate.train.steps.distillation:build",
}

# name -> "module:class" of what its [options] may say.
STEP_OPTIONS: dict[str, str] = {
    "autoencoder": "emoji_family.training.autoencoder_dc:AutoencoderOptions",
    "clip": "emoji_family.training.clip:ClipOptions",
    "prior": "inflate.train.steps.prior:PriorOptions",
    "decoder": "inflate.train.steps.decoder:DecoderOptions",
    "video": "inflate.train.video_options:VideoOptions",
    "video-decoder": "inflate.train.steps.video_decoder:VideoDecoderOptions",
    "interpolation": "interp.training.interpolation:InterpolationOptions",
    "frame-decoder": "interp.training.frame_decoder:FrameDecoderOptions",
    "image-super-resolution": "superres.training:SuperResolutionOptions",
    "video-super-resolution": "superres.training:SuperResolutionOptions",
    "autoencoder-kl": "emoji_family.training.autoencoder_kl:AutoencoderKLOptions",
    "text-encoder": "emoji_family.training.text_encoder:TextEncoderOptions",
    "text-to-image": "emoji_family.training.text_to_image:TextToImageOptions",
    "distillation": "inflate.train.steps.distillation:DistillationOptions",
}


def check_step(recipe: Recipe) -> None:
    """Raise ``InputError`` where ``recipe.step`` is none that the loop can run; the nearest name is offered."""
    if recipe.step == "distill":
        raise InputError(f"The recipe {recipe.name!r} distils in several phases; run it with `inflate distill`.")
    if recipe.step not in TRAIN_STEPS:
        names = list(TRAIN_STEPS)
        raise InputError(f"The step {recipe.step!r} is unknown{nearest(recipe.step, names)}; use {', '.join(names)}.")


def build_step(recipe: Recipe, device: torch.device) -> TrainStep:
    """The TrainStep that ``recipe.step`` names.

    Raises:
        InputError: as :func:`check_step`, or bad options.
    """
    check_step(recipe)
    module, function = TRAIN_STEPS[recipe.step].split(":")
    return getattr(import_module(module), function)(recipe, device)
