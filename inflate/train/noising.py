"""What a denoising network is trained on: noisy samples, what it should predict of them, and how much each counts.

A network that predicted eps becomes one that predicts v by fine-tuning it on the other target (progressive
distillation, arXiv:2202.00512, section 4): the two are linear in each other at fixed z, so that nothing but the meaning
of the output has to be learned anew. v has a meaning where no signal is left, eps has none there, so the change comes
before training with zero terminal SNR (arXiv:2305.08891, section 3.2), without which a model can neither be very dark
nor very bright.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from inflate.diffusion.noise import mix_noise
from inflate.diffusion.weights import loss_weight, signal_to_noise
from inflate.errors import InputError, nearest
from inflate.train.processes import noisy_and_target

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
_KEPT = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type")


def schedule_of(
    scheduler: str = "", prediction_type: str = "", zero_terminal_snr: bool = False, start: str = ""
) -> dict[str, Any]:
    """The settings to train under, as diffusers' schedulers take them.

    Args:
        scheduler: folder of the image model's scheduler; "" is the one beside ``start``, or else the cosine schedule
            with v-prediction.
        prediction_type: what the network is to predict from now on; "" is what it predicts already.
        zero_terminal_snr: shift and scale the schedule so that its last step leaves no signal.
        start: folder of the network that training starts from, if any.

    Raises:
        InputError: no such folder, an unknown prediction type, or zero terminal SNR for a network that predicts eps.
    """
    config = dict(SCHEDULE)
    beside = Path(start).parent / "scheduler"
    if not scheduler and start and (beside / "scheduler_config.json").is_file():
        scheduler = str(beside)
    if scheduler:
        path = Path(scheduler) / "scheduler_config.json"
        if not path.is_file():
            raise InputError(f"options.scheduler is {scheduler!r}, where no scheduler_config.json lies.")
        read = json.loads(path.read_text(encoding="utf-8"))
        config = {name: read[name] for name in _KEPT if read.get(name) is not None}
        zero_terminal_snr = zero_terminal_snr or bool(read.get("rescale_betas_zero_snr"))
    if prediction_type:
        config["prediction_type"] = prediction_type
    kind = config.setdefault("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        known = ", ".join(PREDICTION_TYPES)
        raise InputError(f"The prediction type {kind!r} is unknown{nearest(kind, PREDICTION_TYPES)}; use {known}.")
    if zero_terminal_snr:
        if kind == "epsilon":
            raise InputError(
                "Zero terminal SNR (options.zero_terminal_snr, or the scheduler's own) leaves a last step without "
                "signal, of which eps says nothing; set options.predict = 'v_prediction' with it."
            )
        config["rescale_betas_zero_snr"] = True
    return config


def sampler_of(config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """The solver for a network trained under ``config``: DPM-Solver++ from the last timestep on ("trailing")."""
    return DPMSolverMultistepScheduler(**config, timestep_spacing="trailing")


class NoiseSchedule:
    """Forward process and loss on a diffusers schedule, for samples whose first dimension is the batch.

    Timesteps are ``T (1 - u^power)`` for uniform ``u``: 1 draws them evenly, more than 1 favours high noise, where the
    shape of a thing is decided.
    """

    def __init__(
        self,
        weighting: str,
        gamma: float,
        device: torch.device,
        power: float = 1.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if power <= 0:
            raise InputError(f"options.timestep_power is {power}; it must be above 0.")
        self.power = power
        self.config = dict(SCHEDULE if config is None else config)
        self.scheduler: Any = DDPMScheduler(**self.config)
        self.weighting, self.gamma = weighting, gamma
        self.prediction_type = str(self.config["prediction_type"])
        self.snr = signal_to_noise(self.scheduler.alphas_cumprod.double()).float().to(device)
        self.steps = int(self.scheduler.config["num_train_timesteps"])

    def noised(self, clean: Tensor, shared_noise: float | Tensor = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy samples, what is to be predicted, and the timesteps (B,), one per batch element.

        ``shared_noise`` is the correlation of the frames' noise, for videos (B, c, F, h, w), or one for each (B,).
        """
        share = 1 - torch.rand(len(clean), device=clean.device) ** self.power
        timestep = (share * self.steps).long().clamp(0, self.steps - 1)
        noise = torch.randn_like(clean)
        if isinstance(shared_noise, Tensor) or shared_noise:
            noise = mix_noise(noise, torch.randn_like(clean[:, :, :1]), shared_noise)
        return *noisy_and_target(self.scheduler, clean, noise, timestep), timestep

    def loss(self, predicted: Tensor, target: Tensor, timestep: Tensor) -> Tensor:
        """Weighted mean-squared error, a scalar."""
        error = (predicted.float() - target).square().flatten(1).mean(1)
        return (error * loss_weight(self.snr[timestep], self.weighting, self.prediction_type, self.gamma)).mean()
