"""Schedulers whose noise levels depend on the size of the picture, as flow matching's do in diffusers' pipelines."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def dynamic_shift(config: Mapping[str, Any], tokens: int) -> float:
    """``mu`` of a scheduler with ``use_dynamic_shifting`` for pictures of so many tokens, linear between two sizes.

    As ``calculate_shift`` of diffusers' pipelines of FLUX and Stable Diffusion 3.5; larger pictures need more noise
    (arXiv:2403.03206, section 5.3.2).
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    first, last = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (last - first) / (high - low)
    return tokens * slope + (first - slope * low)


def at_resolution(scheduler: Any, tokens: int, even_steps: bool = False) -> Any:
    """A scheduler that takes the steps which its pipeline takes for pictures of ``tokens`` tokens.

    Args:
        scheduler: any diffusers scheduler; one that knows nothing of sizes comes back itself.
        tokens: of one picture.
        even_steps: whether levels before shifting run evenly from 1 to 1/n, as FLUX's pipeline has them.
    """
    known, options = inspect.signature(scheduler.set_timesteps).parameters, {}
    if scheduler.config.get("use_dynamic_shifting") and "mu" in known:
        options["mu"] = dynamic_shift(scheduler.config, tokens)
    even = even_steps and "sigmas" in known and not scheduler.config.get("use_flow_sigmas")
    if not options and not even:
        return scheduler
    kind: Any = type(scheduler)

    class AtResolution(kind):
        """The scheduler's class with its steps of one size of picture."""

        def set_timesteps(
            self, num_inference_steps: int, device: str | torch.device | None = None, **more: Any
        ) -> None:
            levels = {"sigmas": np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)} if even else {}
            super().set_timesteps(num_inference_steps, device=device, **(options | levels | more))

    AtResolution.__name__ = kind.__name__  # a config names its class
    return AtResolution.from_config(scheduler.config)
