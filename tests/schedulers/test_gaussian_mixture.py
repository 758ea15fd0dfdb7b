"""Samplers on a video whose denoiser is known (benchmarks/gaussian_mixture.py): their orders, and where they arrive."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.diffusion.processes import marginal
from inflate.diffusion.schedules import Level

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gaussian_mixture.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gaussian_mixture", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for its own module
    spec.loader.exec_module(module)
    return module


TOY = load()
VIDEO = TOY.MixtureVideo.make()
Z, START = TOY.beginning(VIDEO, 600, 1)
TRUE: Tensor = TOY.exact_ode(VIDEO, Z, START, 60)
FLOOR: float = TOY.sampling_error(VIDEO, 600, 10)


def test_the_denoiser_is_the_posterior_mean() -> None:
    """By Tweedie's formula, ``alpha E[x|z] = z + sigma^2 grad log q(z)``, with q summed from its components."""
    alpha, sigma = 0.6, 0.8
    level = Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
    z = Z[:5].clone().requires_grad_(True)
    spread = alpha**2 * VIDEO.basis @ VIDEO.eigenvalues.diag() @ VIDEO.basis.T
    spread = spread + sigma**2 * torch.eye(len(spread), dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(alpha * VIDEO.means, (spread + spread.T) / 2)
    density = torch.logsumexp(parts.log_prob(z[:, None]) + VIDEO.weights.log(), dim=1)
    [score] = torch.autograd.grad(density.sum(), z)
    wanted = (z.detach() + sigma**2 * score) / alpha
    assert torch.allclose(VIDEO.denoise(z.detach(), level), wanted, atol=1e-10)


def test_the_exact_ode_ends_in_the_distribution() -> None:
    fresh = VIDEO.sample(600, torch.Generator().manual_seed(3))
    assert abs(TOY.energy_distance(fresh, TRUE)) < 2 * FLOOR
    # and noise of no such origin is seen to be elsewhere
    assert TOY.energy_distance(marginal(fresh, START).mean, TRUE) > 20 * FLOOR


@pytest.mark.parametrize("name", ["angular DDIM", "DPM++ 2M", "Heun"])
def test_solvers_have_the_order_they_promise(name: str) -> None:
    steps = (20, 40, 100)
    errors = TOY.ode_errors(name, VIDEO, Z[:100], TRUE[:100], steps)
    assert TOY.fitted_order(steps, errors) == pytest.approx(TOY.SAMPLERS[name][1], abs=0.2)


def test_the_angular_step_brings_the_energy_distance_down_with_the_square_of_steps() -> None:
    """The distance is a squared one, so order 1 is slope 2."""
    steps = (20, 40, 80)
    found = TOY.distances("angular DDIM", VIDEO, Z, TRUE, steps)
    assert TOY.fitted_order(steps, found) == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("name", [name for name, (_, order) in TOY.SAMPLERS.items() if order is None])
def test_samplers_that_draw_noise_reach_the_distribution(name: str) -> None:
    few, many = TOY.distances(name, VIDEO, Z, TRUE, (2, 50))
    assert few > 4 * FLOOR
    assert abs(many) < FLOOR


class _Flipped:
    """A scheduler that is told the wrong thing of the network, as a sampler with that mistake would read it."""

    def __init__(self, inner: Any, wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.inner, self.wrong = inner, wrong

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, made: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any:
        return self.inner.step(self.wrong(made, sample), timestep, sample, **options)


@pytest.mark.parametrize(
    "wrong", [lambda v, z: -v, lambda v, z: 0.97 * v, lambda v, z: v + 0.05 * z], ids=["sign", "3 %", "leak"]
)
def test_a_sampler_with_a_mistake_is_seen(wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
    steps = (20, 40, 100)
    ends = [TOY.run(_Flipped(TOY.SAMPLERS["angular DDIM"][0](), wrong), VIDEO, Z[:100], count) for count in steps]
    errors = [float((end - TRUE[:100]).square().mean(1).sqrt().median()) for end in ends]
    assert TOY.fitted_order(steps, errors) < 0.8
