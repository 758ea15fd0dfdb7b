"""DDIM as a turn of the circle."""

from typing import Any

from torch import Tensor

from inflate.diffusion.processes import angular_ddim
from inflate.schedulers.base import LevelScheduler


class AngularDDIMScheduler(LevelScheduler):
    """``z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v`` (E5; progressive distillation, arXiv:2202.00512, appendix
    D): DDIM with eta = 0, finite from pure noise on, where alpha is 0 and DDIM divides by it.

    Equal to diffusers' ``DDIMScheduler``; where x is clipped or thresholded, to that with
    ``use_clipped_model_output=True``, since v is then that of the clipped x.
    """

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None, return_dict: bool = True
    ) -> Any:
        """From ``timestep`` to the next; ``generator`` is taken and not used, as nothing is drawn."""
        t, s = self.level(timestep), self.level_after(timestep)
        seen = self.read(model_output, sample, t)
        return self.output(angular_ddim(seen.z, seen.v, s, t), seen.x, sample, return_dict)
