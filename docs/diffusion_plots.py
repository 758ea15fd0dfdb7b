"""The plots of diffusion.md, from the functions it names: `python docs/diffusion_plots.py` (needs matplotlib).

Writes schedules.png, log-snr.png and ddim-step.png beside this file.
"""

import math
from pathlib import Path
from typing import Any

import matplotlib
import torch

from inflate.diffusion.conversions import v_from_both
from inflate.diffusion.processes import angular_ddim
from inflate.diffusion.schedules import (
    Level,
    cosine,
    from_angle,
    from_betas,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).resolve().parent
TIME = torch.linspace(0, 1, 1000, dtype=torch.float64)
SCHEDULES: dict[str, Level] = {
    "cosine": cosine(TIME),
    "linear (DDPM)": from_betas(linear_betas()),
    "scaled linear (Stable Diffusion)": from_betas(scaled_linear_betas()),
    "scaled linear, zero terminal SNR": from_betas(zero_terminal_snr(scaled_linear_betas())),
}


def schedules() -> Any:
    """alpha and sigma by time."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for panel, name in zip(panels, ("alpha", "sigma"), strict=True):
        for number, (label, level) in enumerate(SCHEDULES.items()):
            panel.plot(TIME, getattr(level, name), "--" if number == 3 else "-", label=label)
        panel.set(title=f"{name}: share of {'signal' if name == 'alpha' else 'noise'}", xlabel="t / T")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return figure


def log_snr() -> Any:
    """log-SNR by time."""
    figure, panel = pyplot.subplots(figsize=(6, 3.8), layout="constrained")
    for number, (label, level) in enumerate(SCHEDULES.items()):
        inside = (level.alpha > 0) & (level.sigma > 0)
        panel.plot(TIME[inside], level.log_snr[inside], "--" if number == 3 else "-", label=label)
    last = float(SCHEDULES["scaled linear (Stable Diffusion)"].log_snr[-1])
    panel.annotate(
        f"Stable Diffusion ends at {last:.1f}:\nsome signal is left",
        (1, last),
        (0.42, -11),
        fontsize=8,
        arrowprops={"arrowstyle": "->", "color": "grey"},
    )
    panel.set(xlabel="t / T", ylabel="log-SNR", ylim=(-15, 15), title="log (alpha² / sigma²)")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    return figure


def at(place: torch.Tensor) -> tuple[float, float]:
    """A point for matplotlib."""
    return float(place[0]), float(place[1])


def ddim_step() -> Any:
    """The circle that z runs on in the plane of x and eps, and one step."""
    begin, end = math.radians(65), math.radians(25)
    t, s = (from_angle(torch.tensor(angle, dtype=torch.float64)) for angle in (begin, end))
    x, eps = torch.eye(2, dtype=torch.float64)
    z = t.alpha * x + t.sigma * eps
    v = v_from_both(x, eps, t)
    after = angular_ddim(z, v, s, t)
    figure, panel = pyplot.subplots(figsize=(4.8, 4.6), layout="constrained")
    turn = torch.linspace(0, math.pi / 2, 200)
    panel.plot(turn.cos(), turn.sin(), color="grey", linewidth=1)
    between = torch.linspace(end, begin, 50)
    panel.plot(1.0 * between.cos(), 1.0 * between.sin(), color="C3", linewidth=3)
    arrows = ((0 * z, z, "C0"), (0 * z, after, "C3"), (z, 0.45 * v, "C2"), (z, -0.45 * v, "C2"))
    for number, (start, way, colour) in enumerate(arrows):
        style = {"color": colour, "alpha": 0.4 if number == 3 else 1}
        panel.quiver(*start, *way, angles="xy", scale_units="xy", scale=1, width=0.008, zorder=3, **style)
    panel.annotate("$z_t$", at(z), at(z + 0.04), fontsize=13, color="C0")
    panel.annotate("$z_s$", at(after), at(after + 0.04), fontsize=13, color="C3")
    panel.annotate("$v = dz/d\\phi$", (0, 0), at(z + 0.45 * v + torch.tensor([0.0, 0.05])), color="C2", fontsize=12)
    panel.annotate("$-v$: towards clean", (0, 0), at(z - 0.45 * v + 0.02), color="C2", fontsize=9)
    for angle, radius, text in ((begin, 0.22, "$\\phi_t$"), (end, 0.36, "$\\phi_s$")):
        arc = torch.linspace(0, angle, 40)
        panel.plot(radius * arc.cos(), radius * arc.sin(), color="grey", linewidth=0.8)
        panel.annotate(
            text, (0, 0), (radius * math.cos(0.7 * angle) + 0.02, radius * math.sin(0.7 * angle)), fontsize=11
        )
    middle = (begin + end) / 2
    panel.annotate(
        "$\\delta = \\phi_s - \\phi_t < 0$", (0, 0), (0.62 * math.cos(middle) - 0.05, 0.62 * math.sin(middle))
    )
    panel.set(
        xlim=(-0.05, 1.35),
        ylim=(-0.05, 1.3),
        aspect="equal",
        xlabel="$\\hat x$ (clean)",
        ylabel="$\\hat\\epsilon$ (noise)",
    )
    panel.set_title("One DDIM step turns z by δ in the plane of x and eps", fontsize=10)
    panel.grid(alpha=0.2)
    return figure


def main() -> None:
    """Write all."""
    for name, make in (("schedules", schedules), ("log-snr", log_snr), ("ddim-step", ddim_step)):
        make().savefig(HERE / f"{name}.png", dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
