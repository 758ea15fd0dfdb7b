"""The noisy sampler for distilled models: two steps with the DDIM, one step back with the forward process."""

from typing import Any

from torch import Tensor

from inflate.diffusion.processes import angular_ddim, forward
from inflate.schedulers.base import Generator, LevelScheduler


class StochasticDDIMScheduler(LevelScheduler):
    """Imagen Video's sampler (arXiv:2210.02303, section 2.7): from t a DDIM step of twice the size, then one step back.

    The step back is the forward process ``q(z_s | z_s')``, s' being where the DDIM step came out. The last step is the
    DDIM step alone, so N steps evaluate the network N times.
    """

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Generator = None, return_dict: bool = True
    ) -> Any:
        """From ``timestep`` to the next."""
        t, s, beyond = self.level(timestep), self.level_after(timestep), self.level_after(timestep, 2)
        seen = self.read(model_output, sample, t)
        made = angular_ddim(seen.z, seen.v, beyond, t)
        if not self.is_last(timestep):
            made = forward(made, beyond, s).sample(self.noise_like(sample, generator))
        return self.output(made, seen.x, sample, return_dict)
