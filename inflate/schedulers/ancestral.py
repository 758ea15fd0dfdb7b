"""The ancestral sampler, with a variance between the posterior's and the forward process's."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from inflate.diffusion.processes import ancestral
from inflate.errors import InputError
from inflate.schedulers.base import Generator, LevelScheduler, Reading


class AncestralScheduler(LevelScheduler):
    """Draws from ``q(z_s | z_t, x)`` (E3) with the variance ``(sigma_{s|t}^2)^(1 - gamma) (sigma_{t|s}^2)^gamma``
    (VDM, arXiv:2204.03458, section 2 and appendix; gamma was 0, 0.1 or 0.3 there).

    gamma = 0 is diffusers' ``DDPMScheduler`` with ``fixed_small``, gamma = 1 with ``fixed_large``. The last step draws
    nothing.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        clip_sample: bool = False,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        gamma: float = 0.0,
    ) -> None:
        _check_gamma(gamma)
        self._prepare()

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Generator = None, return_dict: bool = True
    ) -> Any:
        """From ``timestep`` to the next."""
        seen = self.read(model_output, sample, self.level(timestep))
        return self.output(self._drawn(seen, timestep, sample, generator), seen.x, sample, return_dict)

    def _drawn(self, seen: Reading, timestep: Any, sample: Tensor, generator: Generator) -> Tensor:
        found = ancestral(seen.z, seen.x, self.level_after(timestep), self.level(timestep), self.config.gamma)
        return found.mean if self.is_last(timestep) else found.sample(self.noise_like(sample, generator))


def _check_gamma(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise InputError(
            f"gamma is {gamma}; it must lie between 0 (the posterior's variance) and 1 (the forward one's)."
        )
