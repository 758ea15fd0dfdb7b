"""What the numbers of a recipe may be: by the name of the option, whichever section or step has it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inflate.errors import InputError

_MANY = 10**9


@dataclass(frozen=True)
class Limit:
    """``fits`` says whether a number will do (NaN, which compares false with everything, never does); ``words`` how."""

    fits: Callable[[float], bool]
    words: str


def _between(low: float, high: float) -> Limit:
    return Limit(lambda value: low <= value <= high, f"a number from {low:g} to {high:g}")


def _counted(low: int, high: int = _MANY) -> Limit:
    return Limit(lambda value: isinstance(value, int) and low <= value <= high, f"a whole number from {low} to {high}")


_SHARE = Limit(lambda value: 0 <= value <= 1, "a number between 0 and 1")
_POSITIVE = Limit(lambda value: 0 < value <= 1e6, "a number above 0, at most a million")
_NOT_NEGATIVE = Limit(lambda value: 0 <= value <= 1e6, "a number of 0 or more, at most a million")
_STEPS = _counted(1, 1000)

LIMITS: dict[str, Limit] = {
    # [train]
    **dict.fromkeys(("steps", "updates", "log_every", "checkpoint_every", "keep_checkpoints"), _counted(1)),
    **dict.fromkeys(("batch_size", "gradient_accumulation_steps"), _counted(1, 65_536)),
    **dict.fromkeys(("sample_every", "validate_every", "warmup_steps", "decay_steps"), _counted(0)),
    "seed": Limit(lambda value: isinstance(value, int) and 0 <= value < 2**63, "a whole number from 0 to below 2^63"),
    "learning_rate": Limit(lambda value: 0 <= value <= 1, "a number from 0 to 1, 1e-4 for instance"),
    "weight_decay": Limit(lambda value: 0 <= value <= 1, "a number from 0 to 1, 0.01 for instance"),
    "beta2": Limit(lambda value: 0 <= value < 1, "a number from 0 to below 1, 0.99 for instance"),
    "ema_decay": Limit(lambda value: 0 <= value < 1, "a number from 0 (no average) to below 1, 0.999 for instance"),
    "max_grad_norm": Limit(
        lambda value: 0 < value < math.inf, "a finite number above 0, a very large one to clip nothing"
    ),
    # [data]; its fps, 0 in a step of ours, and its size are looked at where they are known
    "num_frames": _counted(1, 1024),
    # [options]
    **dict.fromkeys(("text_dropout", "condition_dropout", "dropout", "keywords", "shared_noise"), _SHARE),
    **dict.fromkeys(("max_noise_level", "noisy_share", "vae_share"), _SHARE),
    **dict.fromkeys(("gamma", "timestep_power"), _POSITIVE),
    **dict.fromkeys(("noise_time", "residual_std", "vae_noise", "latent_noise", "trust_spread"), _NOT_NEGATIVE),
    **dict.fromkeys(("lora_alpha", "edge_weight", "moment_weight", "latent_weight", "word_weight"), _NOT_NEGATIVE),
    "log_variance": _between(-30, 20),
    **dict.fromkeys(("guidance", "guidance_range", "sample_guidance", "guidance_scale"), _between(0, 100)),
    **dict.fromkeys(("sample_steps", "teacher_steps", "num_inference_steps"), _STEPS),
    **dict.fromkeys(("pictures_per_batch", "motion_lora_rank", "shift_pixels"), _counted(0, 4096)),
    "lora_rank": _counted(1, 4096),
    "frames_per_clip": _counted(1, 1024),
    "validation_clips": _counted(0, 100_000),
    "sample_clips": _counted(0, 1024),
    "extra_layers": _counted(0, 96),
    "length": _counted(0, 4096),
    "crop": _counted(0, 8192),
}


def check_numbers(name: str, value: Any, where: str) -> None:
    """Raise ``InputError`` where a number, or one of a list, is none that an option of that name can have."""
    limit = LIMITS.get(name)
    for one in value if isinstance(value, tuple) else (value,):
        number = isinstance(one, int | float) and not isinstance(one, bool)
        words = None
        if limit is not None and not (number and limit.fits(one)):
            words = limit.words
        elif limit is None and number and not math.isfinite(one):
            words = "a finite number"
        if words is not None:
            section = where.rpartition(": ")[2]  # of "recipe.toml: train"
            named = f"{where}.{name}" if section.isidentifier() else f"{where}: {name}"
            raise InputError(f"{named} is {one!r}; it must be {words}.")
