"""Targets and weights of the three prediction types, and an eps-model that becomes a v-model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from inflate.diffusion.conversions import to_x
from inflate.diffusion.schedules import from_alphas_cumprod
from inflate.errors import InputError
from inflate.train.loop import train
from inflate.train.noising import SCHEDULE, NoiseSchedule, sampler_of, schedule_of

from .test_steps import _options, _recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_target_means_the_clean_sample(kind: str, betas: str) -> None:
    torch.manual_seed(0)
    schedule = NoiseSchedule("v", 5.0, CPU, config=SCHEDULE | {"beta_schedule": betas, "prediction_type": kind})
    clean = torch.randn(64, 3, 4, 4, dtype=torch.float64)
    noisy, target, timestep = schedule.noised(clean)
    level = from_alphas_cumprod(schedule.scheduler.alphas_cumprod.double()[timestep])
    keeps = level.alpha > 0.05  # x from eps is lost where there is no signal
    assert torch.allclose(to_x(noisy, target, level, kind)[keeps], clean[keeps], atol=1e-4)


def test_weights_make_the_losses_of_all_prediction_types_one() -> None:
    """The same error of x, seen as eps, v or x, counts the same under the same weighting."""
    torch.manual_seed(0)
    losses = []
    for kind in ("epsilon", "sample", "v_prediction"):
        schedule = NoiseSchedule("min-snr", 5.0, CPU, config=SCHEDULE | {"prediction_type": kind})
        timestep = torch.tensor([300, 700])
        snr = schedule.snr[timestep]
        error = {"sample": torch.ones(2), "epsilon": snr.sqrt(), "v_prediction": (1 + snr).sqrt()}[kind]
        made = torch.zeros(2, 1) + error[:, None]
        losses.append(float(schedule.loss(made, torch.zeros(2, 1), timestep)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[2] == pytest.approx(losses[1], rel=1e-5)


def test_with_zero_terminal_snr_the_last_step_is_noise_and_its_target_the_picture() -> None:
    config = schedule_of("", "v_prediction", True)
    schedule = NoiseSchedule("v", 5.0, CPU, 1.0, config)
    clean, timestep = torch.randn(2, 4), torch.tensor([999, 999])
    noise = torch.randn(2, 4)
    assert float(schedule.scheduler.alphas_cumprod[-1]) < 1e-6
    assert torch.allclose(schedule.scheduler.add_noise(clean, noise, timestep), noise, atol=1e-3)
    assert torch.allclose(schedule.scheduler.get_velocity(clean, noise, timestep), -clean, atol=1e-3)
    loss = schedule.loss(-clean + 0.5, -clean, timestep)
    assert float(loss) == pytest.approx(0.25)


@pytest.mark.parametrize("theirs", [DDIMScheduler, EulerDiscreteScheduler, DDPMScheduler])
def test_any_schedulers_folder_says_the_schedule(theirs: type, tmp_path: Path) -> None:
    theirs(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(tmp_path)
    config = schedule_of(str(tmp_path))
    assert config["prediction_type"] == "epsilon" and "rescale_betas_zero_snr" not in config
    wanted = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    assert torch.equal(NoiseSchedule("snr", 5.0, CPU, 1.0, config).scheduler.alphas_cumprod, wanted)


def test_an_epsilon_model_becomes_a_v_model(videos: Path, tiny_family: Path, tmp_path: Path) -> None:
    """Its image model's scheduler says eps; after the fine-tune the exported one says v."""
    DDPMScheduler(beta_schedule="linear", prediction_type="epsilon").save_pretrained(tmp_path / "eps")
    eps = {"clip": str(tiny_family / "clip"), "vae": str(tiny_family / "vae"), "init": str(tiny_family / "unet")}
    eps |= {"scheduler": str(tmp_path / "eps"), "weighting": "snr"}
    first = train(_recipe("decoder", videos, tmp_path / "first", eps), device="cpu", quiet=True)
    written = json.loads((first / "scheduler/scheduler_config.json").read_text())
    assert (written["prediction_type"], written["beta_schedule"]) == ("epsilon", "linear")

    then = eps | {"init": str(first / "unet"), "scheduler": str(first / "scheduler"), "weighting": "truncated-snr"}
    then |= {"predict": "v_prediction", "zero_terminal_snr": True}
    assert schedule_of(start=str(first / "unet"))["prediction_type"] == "epsilon", "the scheduler beside it is asked"
    second = train(_recipe("decoder", videos, tmp_path / "second", then), device="cpu", quiet=True)
    found: Any = DPMSolverMultistepScheduler.from_pretrained(second / "scheduler")
    assert found.config["prediction_type"] == "v_prediction" and found.config["timestep_spacing"] == "trailing"
    assert found.config["rescale_betas_zero_snr"] and found.config["beta_schedule"] == "linear"

    video = _options("video-decoder", tiny_family)
    video |= {"image_model": str(second / "unet"), "scheduler": str(second / "scheduler")}
    third = train(_recipe("video-decoder", videos, tmp_path / "third", video), device="cpu", quiet=True)
    kept = json.loads((third / "scheduler/scheduler_config.json").read_text())
    assert kept["prediction_type"] == "v_prediction" and kept["rescale_betas_zero_snr"], (
        "what the image model says stays"
    )


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    DDPMScheduler().save_pretrained(tmp_path / "eps")
    with pytest.raises(InputError, match="of which eps says nothing"):
        schedule_of(str(tmp_path / "eps"), "", True)
    with pytest.raises(InputError, match="where no scheduler_config"):
        schedule_of(str(tmp_path))
    with pytest.raises(InputError, match="'v_predicton' is unknown"):
        schedule_of("", "v_predicton")
    assert sampler_of(schedule_of()).config["timestep_spacing"] == "trailing"
