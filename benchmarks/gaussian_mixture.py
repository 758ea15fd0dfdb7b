"""Samplers on a video whose denoiser is known exactly: do they reach the distribution, and at the order they promise?

The data are a Gaussian mixture over videos of 6 frames x 4 numbers: each component a motion (a turning point), frames
correlated along time. E[x | z] is then a closed form, so nothing but the sampler can be wrong. Each run starts from the
true marginal at the last timestep. The schedule is even in the angle phi, so N steps are N equal turns: on Stable
Diffusion's schedule the last turn shrinks with the root of N only, and every solver looks like one of order 1/2. Two
figures, all of it in one command:

    python benchmarks/gaussian_mixture.py            # writes gaussian_mixture.json and .png beside this file

- Energy distance (Szekely and Rizzo 2013; unbiased, so it may fall below 0) to true samples, by steps. Those are where
  the exact ODE leads from the same noise, so a solver's samples pair with them and the sampling error cancels: a
  solver of order p falls with slope 2 p, since this distance is a squared one. Samplers that draw noise stop at the
  sampling error, the `floor`: the 95th percentile between pairs of true sets. `exact` is the distance of the ODE's ends
  to samples of the mixture itself.
- Error of the solvers against the ODE dz/dphi = v integrated with Runge-Kutta's fourth order in float64; the slope of
  log error over log steps is minus the order. It is the median of samples: a path between two components may end at
  the other one for the smallest error, and few such paths make up most of a mean.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from inflate.diffusion.conversions import v_from_x
from inflate.diffusion.schedules import Level, from_angle, level_at, of_scheduler
from inflate.schedulers import (
    AncestralScheduler,
    AngularDDIMScheduler,
    PredictorCorrectorScheduler,
    StochasticDDIMScheduler,
)

FRAMES, SIZE, COMPONENTS = 6, 4, 5
LAST_ANGLE = 1.5  # of pi / 2 = 1.571; sigma / alpha is 14 there


def even_betas(steps: int = 1000) -> list[float]:
    """Betas after which the angle rises evenly to LAST_ANGLE."""
    kept = (torch.arange(steps + 1, dtype=torch.float64) / steps * LAST_ANGLE).cos().square()
    return (1 - kept[1:] / kept[:-1]).tolist()


CONFIG: dict[str, Any] = {
    "trained_betas": even_betas(),
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
# Name -> how it is made, and the order of its ODE solver (None: it draws noise).
SAMPLERS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "angular DDIM": (lambda: AngularDDIMScheduler(**CONFIG), 1),
    "DDIM": (lambda: diffusers.DDIMScheduler(**CONFIG, clip_sample=False), 1),
    "Euler": (lambda: diffusers.EulerDiscreteScheduler(**CONFIG), 1),
    "DPM++ 2M": (lambda: diffusers.DPMSolverMultistepScheduler(**CONFIG, solver_order=2, lower_order_final=False), 2),
    "Heun": (lambda: diffusers.HeunDiscreteScheduler(**CONFIG), 2),
    "ancestral 0": (lambda: AncestralScheduler(**CONFIG, gamma=0.0), None),
    "ancestral 0.3": (lambda: AncestralScheduler(**CONFIG, gamma=0.3), None),
    "ancestral 1": (lambda: AncestralScheduler(**CONFIG, gamma=1.0), None),
    "predictor-corrector": (lambda: PredictorCorrectorScheduler(**CONFIG, gamma=0.0), None),
    "stochastic DDIM": (lambda: StochasticDDIMScheduler(**CONFIG), None),
}
STEPS = (5, 10, 20, 40, 100)
ORDER_STEPS = (20, 25, 40, 50, 100)


@dataclass(frozen=True)
class MixtureVideo:
    """Gaussian components (K, N) with weights (K,) and one covariance (N, N) for all, N = frames x size; float64."""

    weights: Tensor
    means: Tensor
    eigenvalues: Tensor
    basis: Tensor

    @classmethod
    def make(cls) -> "MixtureVideo":
        """Points that circle at different speeds; frames correlate by 0.8 per frame of distance."""
        frame = torch.arange(FRAMES, dtype=torch.float64)
        means = []
        for number in range(COMPONENTS):
            turn = (number - 2) * frame / FRAMES * math.pi / 2 + 2 * math.pi * number / COMPONENTS
            means.append(torch.stack([turn.cos(), turn.sin(), 0.5 * turn.cos(), frame / FRAMES - 0.5], dim=1).flatten())
        along = 0.8 ** (frame[:, None] - frame).abs()
        covariance = 0.05 * torch.kron(along, torch.eye(SIZE, dtype=torch.float64))
        weights = torch.arange(1, COMPONENTS + 1, dtype=torch.float64)
        return cls(weights / weights.sum(), torch.stack(means), *torch.linalg.eigh(covariance))

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """True videos (number, N)."""
        chosen = torch.multinomial(self.weights, number, replacement=True, generator=generator)
        noise = torch.randn(number, len(self.eigenvalues), dtype=torch.float64, generator=generator)
        return self.means[chosen] + (noise * self.eigenvalues.sqrt()) @ self.basis.T

    def denoise(self, z: Tensor, at: Level) -> Tensor:
        """E[x | z] for z (B, N): every component's own posterior mean, weighed by how well it explains z."""
        alpha, sigma = at.alpha, at.sigma
        variance = alpha**2 * self.eigenvalues + sigma**2  # of z along each axis, the same for all components
        away = (z[:, None] - alpha * self.means) @ self.basis  # (B, K, N)
        share = torch.softmax(self.weights.log() - 0.5 * (away.square() / variance).sum(-1), dim=1)
        pull = (share[..., None] * away).sum(1) * (alpha * self.eigenvalues / variance)
        return share @ self.means + pull @ self.basis.T

    def velocity(self, z: Tensor, at: Level) -> Tensor:
        """E[v | z], what a perfect network with v-prediction says."""
        return v_from_x(z, self.denoise(z, at), at)


def run(scheduler: Any, video: MixtureVideo, z: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Sample from ``z`` (B, N) at the last timestep; every sampler starts from the same z, whatever it scales it by."""
    levels = of_scheduler(scheduler)
    scheduler.set_timesteps(steps)
    # Karras samplers walk on z / alpha; their own init_noise_sigma leaves out the data's share of the variance.
    karras = isinstance(scheduler, diffusers.EulerDiscreteScheduler | diffusers.HeunDiscreteScheduler)
    sample = z * (scheduler.sigmas[0].double() ** 2 + 1).sqrt() if karras else z
    shape = (len(z), FRAMES, SIZE)  # as (B, C, W), since diffusers' solvers expect channels
    options = {} if generator is None else {"generator": generator}
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(sample.reshape(shape), timestep).reshape(len(z), -1).double()
        made = video.velocity(seen, level_at(levels, float(timestep))).reshape(shape)
        sample = scheduler.step(made, timestep, sample.reshape(shape), **options).prev_sample.reshape(len(z), -1)
    return sample.double()


def exact_ode(video: MixtureVideo, z: Tensor, start: Level, steps: int = 200) -> Tensor:
    """dz/dphi = v from ``start`` to phi = 0 with Runge-Kutta's fourth order.

    The last stretch, where v = (alpha z - x) / sigma loses digits, is one DDIM step of 1e-5.
    """
    angles = torch.linspace(float(start.angle), 1e-5, steps + 1, dtype=torch.float64)

    def slope(where: Tensor, angle: Tensor) -> Tensor:
        return video.velocity(where, from_angle(angle))

    for here, there in pairwise(angles):
        h = there - here
        first = slope(z, here)
        second = slope(z + h / 2 * first, here + h / 2)
        third = slope(z + h / 2 * second, here + h / 2)
        z = z + h / 6 * (first + 2 * second + 2 * third + slope(z + h * third, there))
    return video.denoise(z, from_angle(angles[-1]))


def energy_distance(made: Tensor, true: Tensor) -> float:
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` over sets of one size, unbiased also where X_i and Y_i come as a pair."""
    pairs = len(made) * (len(made) - 1)
    across = torch.cdist(made, true)
    apart = 2 * (across.sum() - across.trace()) - torch.cdist(made, made).sum() - torch.cdist(true, true).sum()
    return float(apart) / pairs


def sampling_error(video: MixtureVideo, number: int, pairs: int = 20) -> float:
    """95th percentile of the size of the energy distance between two true sets."""
    generator = torch.Generator().manual_seed(4)
    found = [energy_distance(*video.sample(2 * number, generator).chunk(2)) for _ in range(pairs)]
    return float(torch.tensor(found).abs().quantile(0.95))


def beginning(video: MixtureVideo, number: int, seed: int) -> tuple[Tensor, Level]:
    """z (number, N) from the true marginal at the last timestep, and that timestep's level."""
    level = level_at(of_scheduler(AngularDDIMScheduler(**CONFIG)), 999)
    generator = torch.Generator().manual_seed(seed)
    x = video.sample(number, generator)
    return level.alpha * x + level.sigma * torch.randn(x.shape, dtype=torch.float64, generator=generator), level


def distances(name: str, video: MixtureVideo, z: Tensor, true: Tensor, steps: tuple[int, ...]) -> list[float]:
    """Energy distance to ``true`` of the samples that ``z`` becomes, for each number of steps."""
    found = []
    for count in steps:
        generator = torch.Generator().manual_seed(2) if SAMPLERS[name][1] is None else None
        found.append(energy_distance(run(SAMPLERS[name][0](), video, z, count, generator), true))
    return found


def ode_errors(name: str, video: MixtureVideo, z: Tensor, exact: Tensor, steps: tuple[int, ...]) -> list[float]:
    """Median over samples of their root mean square distance to the exact end of the ODE, for each number of steps."""
    ends = [run(SAMPLERS[name][0](), video, z, count) for count in steps]
    return [float((end - exact).square().mean(1).sqrt().median()) for end in ends]


def fitted_order(steps: tuple[int, ...], errors: list[float]) -> float:
    """Minus the slope of log error over log steps, by least squares."""
    x, y = torch.tensor(steps, dtype=torch.float64).log(), torch.tensor(errors, dtype=torch.float64).log()
    x = x - x.mean()
    return -float((x * y).sum() / x.square().sum())


def measure(number: int) -> dict[str, Any]:
    """Everything, as it is written to JSON."""
    begun = time.monotonic()
    video = MixtureVideo.make()
    z, level = beginning(video, number, 1)
    true = exact_ode(video, z, level)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "samples": number,
        "steps": STEPS,
        "floor": sampling_error(video, number),
        "exact": energy_distance(video.sample(number, torch.Generator().manual_seed(3)), true),
        "energy_distance": {name: distances(name, video, z, true, STEPS) for name in SAMPLERS},
        "order_steps": ORDER_STEPS,
        "ode_error": {},
        "order": {},
    }
    few = slice(200)
    for name, (_, order) in SAMPLERS.items():
        if order is not None:
            errors = ode_errors(name, video, z[few], true[few], ORDER_STEPS)
            report["ode_error"][name] = errors
            report["order"][name] = {"promised": order, "fitted": fitted_order(ORDER_STEPS, errors)}
    return report | {"seconds": round(time.monotonic() - begun, 1)}


def plot(report: dict[str, Any], path: Path) -> None:
    """Both figures side by side; energy distances within the sampling error end at it, but for paired ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
    floor, solvers = report["floor"], report["order"]
    for number, (name, found) in enumerate(report["energy_distance"].items()):
        # DDIM and Euler are the angular DDIM to the last digits: markers of different sizes show all three.
        style: dict[str, Any] = {"color": f"C{number}", "marker": "o", "markersize": max(7 - 2 * number, 3)}
        style |= {"linestyle": "-" if name in solvers else "--", "markerfacecolor": "none" if number < 2 else None}
        within = [value <= floor and name not in solvers for value in found]
        last = within.index(True) if True in within else len(found)
        shown = [max(value, floor) if name not in solvers else value for value in found[: last + 1]]
        left.plot(report["steps"][: len(shown)], shown, label=name, **style)
        if name in solvers:
            label = f"{name}: order {solvers[name]['fitted']:.2f}"
            right.plot(report["order_steps"], report["ode_error"][name], label=label, **style)
    left.axhspan(left.get_ylim()[0], floor, color="grey", alpha=0.12, linewidth=0)
    left.axhline(floor, color="grey", linewidth=0.8, label="sampling error")
    for axes, steps, values, times in (
        (left, report["steps"], report["energy_distance"], 2),
        (right, report["order_steps"], report["ode_error"], 1),
    ):
        for order in (1, 2):
            first = max(values[name][-1] for name, found in solvers.items() if found["promised"] == order)
            guide = [1.6 * first * (steps[-1] / count) ** (order * times) for count in steps]
            label = f"slopes {times} and {2 * times}" if order == 1 else None
            axes.plot(steps, guide, ":", color="black", linewidth=1, label=label)
        axes.set(xscale="log", yscale="log", xlabel="steps")
        axes.set_xticks(steps, [str(count) for count in steps])
        axes.minorticks_off()
        axes.legend(fontsize=8, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
        axes.grid(alpha=0.3)
    left.set(ylabel="energy distance", title="To the true distribution")
    right.set(ylabel="error, median of samples", title="To the exact ODE, from the same noise")
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Measure, print a table, write JSON and PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    report = measure(arguments.samples)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(report, arguments.output.with_suffix(".png"))
    print(f"energy distance; sampling error {report['floor']:.5f}, of the exact ODE {report['exact']:.5f}")
    print(f"{'steps':>20}", *(f"{count:>9}" for count in STEPS))
    for name, found in report["energy_distance"].items():
        print(f"{name:>20}", *(f"{value:9.6f}" for value in found))
    for name, order in report["order"].items():
        print(f"{name:>20} order {order['fitted']:.2f}, promised {order['promised']}")


if __name__ == "__main__":
    main()
