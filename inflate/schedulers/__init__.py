"""Samplers that diffusers lacks, with diffusers' scheduler interface: they drop into any pipeline.

``from_config`` takes the config of any diffusers scheduler that has ``alphas_cumprod``, and keeps its noise schedule.
"""

# diffusers loads a pipeline's component from another library only if it finds the base class there too.
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from inflate.schedulers.ancestral import AncestralScheduler
from inflate.schedulers.angular import AngularDDIMScheduler
from inflate.schedulers.corrector import PredictorCorrectorScheduler
from inflate.schedulers.stochastic import StochasticDDIMScheduler

SCHEDULERS: dict[str, type] = {
    found.__name__: found
    for found in (AncestralScheduler, AngularDDIMScheduler, PredictorCorrectorScheduler, StochasticDDIMScheduler)
}

__all__ = [
    "SCHEDULERS",
    "AncestralScheduler",
    "AngularDDIMScheduler",
    "PredictorCorrectorScheduler",
    "SchedulerMixin",
    "StochasticDDIMScheduler",
]
