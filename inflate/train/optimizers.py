"""AdamW over the trained parameters, in float32 or with its moments in 8 bits."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from inflate.errors import InputError
from inflate.train.recipe import TrainOptions


def build_optimizer(options: TrainOptions, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) as ``options`` say; each group has its factor of the learning rate as ``scale``.

    ``adamw-8bit`` keeps the two moments block-wise in 8 bits (arXiv:2110.02861), a quarter of their memory; tensors of
    less than 4096 numbers keep float32.

    Raises:
        InputError: a prefix of ``learning_rate_scale`` fits nothing, or bitsandbytes is missing.
    """
    groups = _parameter_groups(parameters, options.learning_rate_scale)
    common: dict[str, Any] = {
        "lr": options.learning_rate,
        "betas": (0.9, options.beta2),
        "weight_decay": options.weight_decay,
    }
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **common)
    if find_spec("bitsandbytes") is None:
        raise InputError("train.optimizer = 'adamw-8bit' needs bitsandbytes: pip install bitsandbytes.")
    return import_module("bitsandbytes.optim").AdamW8bit(groups, **common)


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
