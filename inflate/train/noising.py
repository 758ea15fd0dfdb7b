"""The noise schedule that a network of our own family is trained under, and how it may change on the way.

A network that predicted eps becomes one that predicts v by fine-tuning it on the other target (progressive
distillation, arXiv:2202.00512, section 4): the two are linear in each other at fixed z, so that nothing but the meaning
of the output has to be learned anew. v has a meaning where no signal is left, eps has none there, so the change comes
before training with zero terminal SNR (arXiv:2305.08891, section 3.2), without which a model can neither be very dark
nor very bright.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DPMSolverMultistepScheduler

from inflate.configs import read_object
from inflate.errors import InputError, nearest

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
    where: str | Path = "options"
    if scheduler:
        where = path = Path(scheduler) / "scheduler_config.json"
        if not path.is_file():
            raise InputError(f"options.scheduler is {scheduler!r}, where no scheduler_config.json lies.")
        read = read_object(path)
        config = {name: read[name] for name in _KEPT if read.get(name) is not None}
        zero_terminal_snr = zero_terminal_snr or bool(read.get("rescale_betas_zero_snr"))
    if prediction_type:
        config["prediction_type"] = prediction_type
    kind = config.setdefault("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        known = ", ".join(PREDICTION_TYPES)
        raise InputError(f"The prediction type {kind!r} is unknown{nearest(str(kind), PREDICTION_TYPES)}; use {known}.")
    if zero_terminal_snr:
        if kind == "epsilon":
            raise InputError(
                "Zero terminal SNR (options.zero_terminal_snr, or the scheduler's own) leaves a last step without "
                "signal, of which eps says nothing; set options.predict = 'v_prediction' with it."
            )
        config["rescale_betas_zero_snr"] = True
    try:
        sampler_of(config)
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{where} describes no noise schedule ({reason}); copy it again.") from error
    return config


def sampler_of(config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """The solver for a network trained under ``config``: DPM-Solver++ from the last timestep on ("trailing")."""
    return DPMSolverMultistepScheduler(**config, timestep_spacing="trailing")
