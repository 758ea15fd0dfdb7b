"""Forward processes against diffusers' schedulers, closed forms, and the published densities."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler

from inflate.errors import InputError
from inflate.train.processes import DiffusionProcess, FlowProcess, diffusion_config, process_of, squared_errors

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SD3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
FLUX = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "use_dynamic_shifting": True,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "shift": 3.0,
}


def _samples(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, 4, 5, 5)
    return tuple(torch.randn(shape, generator=generator) for _ in range(2))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_diffusion_is_what_the_pipelines_scheduler_does(kind: str) -> None:
    clean, noise = _samples()
    config: Any = DDIMScheduler(**SD, prediction_type=kind).config  # pyright: ignore[reportArgumentType]
    process = process_of({"_class_name": "DDIMScheduler", **config}, "diffusion")
    times = process.levels(torch.tensor([0.0, 0.5, 0.999]))
    assert times.tolist() == [0, 500, 999]
    noised = process.noised(clean, noise, times)
    alpha_bar = DDPMScheduler(**SD).alphas_cumprod[times].view(-1, 1, 1, 1, 1).double()
    wanted = alpha_bar.sqrt() * clean.double() + (1 - alpha_bar).sqrt() * noise.double()
    assert torch.allclose(noised.noisy.double(), wanted, atol=1e-6)
    targets = {
        "epsilon": noise.double(),
        "sample": clean.double(),
        "v_prediction": alpha_bar.sqrt() * noise.double() - (1 - alpha_bar).sqrt() * clean.double(),
    }
    assert torch.allclose(noised.target.double(), targets[kind], atol=1e-6)
    # The plain squared error of what is predicted: every level counts the same.
    assert torch.allclose(noised.weight, torch.ones(3), atol=1e-5)
    assert torch.allclose(process.clean_of(noised.noisy, noised.target, times), clean, atol=2e-2)


def test_karlos_scheduler_names_no_betas_and_trains_under_its_own() -> None:
    config = diffusion_config({"num_train_timesteps": 1000, "prediction_type": "epsilon"}, "UnCLIPScheduler")
    ours: Any = DDPMScheduler(**config)
    assert torch.allclose(ours.alphas_cumprod, UnCLIPScheduler().alphas_cumprod, atol=1e-6)


def test_flow_matching_is_what_sd3s_scheduler_does() -> None:
    clean, noise = _samples()
    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    process = process_of(SD3, "flow")
    times = process.levels(torch.tensor([0.1, 0.5, 0.9]))
    # The scheduler's table of levels is the same curve at whole thousandths.
    assert torch.allclose(times, torch.stack([theirs.sigmas[1000 - round(1000 * s)] for s in (0.1, 0.5, 0.9)]))
    noised = process.noised(clean, noise, times)
    for place in range(3):
        single = theirs.scale_noise(clean[place : place + 1], times[place : place + 1] * 1000, noise[place : place + 1])
        assert torch.allclose(noised.noisy[place : place + 1], single, atol=1e-6)
    assert torch.equal(noised.target, noise - clean)
    assert torch.allclose(noised.timestep, times * 1000)
    assert torch.allclose(process.clean_of(noised.noisy, noised.target, times), clean, atol=1e-5)


@pytest.mark.parametrize("tokens", [64, 1024, 4096])
def test_flux_shifts_by_resolution_as_its_pipeline_does(tokens: int) -> None:
    process = process_of(FLUX, "flow", tokens=tokens)
    assert isinstance(process, FlowProcess)
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    assert math.isclose(process.shift, math.exp(mu), rel_tol=1e-9)
    theirs: Any = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    levels = torch.linspace(0.1, 1.0, 5)
    moved = theirs.time_shift(mu, 1.0, levels)
    assert torch.allclose(process.levels(levels), moved, atol=1e-6)


def test_logit_normal_times_have_the_densitys_quantiles() -> None:
    uniform = (torch.arange(20_000, dtype=torch.float32) + 0.5) / 20_000
    logits = FlowProcess().times(uniform).double().logit()
    assert abs(float(logits.mean())) < 1e-3 and abs(float(logits.std()) - 1) < 5e-3
    even = DiffusionProcess(SD | {"prediction_type": "epsilon"}).times(uniform)
    assert abs(float(even.double().mean()) - 499.5) < 0.1
    middle = DiffusionProcess(SD | {"prediction_type": "epsilon"}, "logit-normal").times(uniform)
    assert ((middle > 250) & (middle < 750)).float().mean() > 0.7


def test_errors_are_per_sample_and_weighted() -> None:
    clean, noise = _samples()
    process = process_of({"_class_name": "DDPMScheduler", **SD, "prediction_type": "epsilon"}, "diffusion", "auto", "x")
    noised = process.noised(clean, noise, torch.tensor([10, 500, 900]))
    errors = squared_errors(noised.target + 1, noised)
    alpha_bar = DDPMScheduler(**SD).alphas_cumprod[torch.tensor([10, 500, 900])]
    # An eps-error of 1 is an x-error of sigma^2 / alpha^2.
    assert torch.allclose(errors, (1 - alpha_bar) / alpha_bar, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "kind", "options", "named"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_max": 80.0}, "diffusion", {}, "EDMEulerScheduler"),
        ({"_class_name": "LCMScheduler", **SD}, "diffusion", {}, "LCMScheduler"),
        ({"_class_name": "DDIMScheduler", **SD}, "diffusion", {"density": "logit"}, "logit-normal"),
        ({"_class_name": "DDIMScheduler", **SD}, "diffusion", {"weighting": "min_snr"}, "min-snr"),
        (SD3, "flow", {"weighting": "min-snr"}, "flow matching"),
        ({"_class_name": "DDIMScheduler", **SD, "prediction_type": "flow"}, "diffusion", {}, "prediction type"),
    ],
)
def test_what_cannot_train_is_named(config: Any, kind: Any, options: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        process_of(config, kind, **options)
