"""Ancestral steps with Langevin corrections between them."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from inflate.diffusion.processes import langevin
from inflate.errors import InputError
from inflate.schedulers.ancestral import AncestralScheduler, _check_gamma
from inflate.schedulers.base import Generator


class PredictorCorrectorScheduler(AncestralScheduler):
    """After each ancestral step, ``corrector_steps`` of ``z - (delta / 2) sigma eps + sqrt(delta) sigma noise``
    (VDM, arXiv:2204.03458, section 3.1; delta = 0.1 there), each with an evaluation of its own.

    A timestep therefore comes ``corrector_steps + 1`` times in ``timesteps``, the first but once: N steps evaluate the
    network ``N + (N - 1) corrector_steps`` times. Like diffusers' Heun, it counts where in ``timesteps`` it is.
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
        corrector_steps: int = 1,
        corrector_delta: float = 0.1,
    ) -> None:
        _check_gamma(gamma)
        if corrector_steps < 0:
            raise InputError(f"corrector_steps is {corrector_steps}; it must be 0 or more.")
        if not 0 < corrector_delta < 4:
            # Langevin dynamics blows up where |1 - delta / 2| >= 1.
            raise InputError(f"corrector_delta is {corrector_delta}; it must lie above 0 and below 4, such as 0.1.")
        self._prepare()
        self.order = corrector_steps + 1
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """Where in ``timesteps`` the next step is; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Where in ``timesteps`` to begin; None: at the first timestep that is met."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin there, as pipelines ask that start from a picture; a multiple of ``order``."""
        self._begin_index = begin_index

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """As the others, each timestep but the first ``order`` times."""
        super().set_timesteps(num_inference_steps, device)
        self.timesteps = torch.cat([self.timesteps[:1], self.timesteps[1:].repeat_interleave(self.order)])
        self._step_index = self._begin_index = None

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Generator = None, return_dict: bool = True
    ) -> Any:
        """A correction at ``timestep``, or the ancestral step to the next one, by where in ``timesteps`` it is."""
        index = self._find(timestep)
        at = self.level(timestep)
        seen = self.read(model_output, sample, at)
        if index % self.order == 0:
            made = self._drawn(seen, timestep, sample, generator)
        else:
            made = langevin(seen.z, seen.eps, at, self.noise_like(sample, generator), self.config.corrector_delta)
        self._step_index = index + 1
        return self.output(made, seen.x, sample, return_dict)

    def _find(self, timestep: Any) -> int:
        steps = self.timesteps.tolist()
        index = self._begin_index if self._step_index is None else self._step_index
        if index is None or index >= len(steps) or steps[index] != int(timestep):
            # Nobody says where: the last of a timestep's places is its ancestral step.
            places = [place for place, step in enumerate(steps) if step == int(timestep)]
            if not places:
                raise InputError(f"{int(timestep)} is not among this scheduler's timesteps; call set_timesteps first.")
            index = places[-1]
        return index
