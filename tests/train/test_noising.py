"""Targets and weights of the three prediction types, and an eps-model that becomes a v-model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from inflate.diffusion.conversions import to_x
from inflate.diffusion.schedules import from_alphas_cumprod
from inflate.diffusion.weights import signal_to_noise
from inflate.errors import InputError
from inflate.inflater import resolve_scheme
from inflate.train.denoising import DenoisingStep, Problem, frame_noise
from inflate.train.loop import train
from inflate.train.noising import SCHEDULE, sampler_of, schedule_of
from inflate.train.processes import DiffusionProcess, squared_errors

from .family_recipes import family_options, family_recipe


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_target_means_the_clean_sample(kind: str, betas: str) -> None:
    torch.manual_seed(0)
    process = DiffusionProcess(SCHEDULE | {"beta_schedule": betas, "prediction_type": kind}, weighting="v")
    clean = torch.randn(64, 3, 4, 4, dtype=torch.float64)
    noised = process.noised(clean, torch.randn_like(clean), process.times(torch.rand(64)))
    level = from_alphas_cumprod(process.scheduler.alphas_cumprod.double()[noised.timestep])
    keeps = level.alpha > 0.05  # x from eps is lost where there is no signal
    assert torch.allclose(to_x(noised.noisy, noised.target, level, kind)[keeps], clean[keeps], atol=1e-4)


def test_weights_make_the_losses_of_all_prediction_types_one() -> None:
    """The same error of x, seen as eps, v or x, counts the same under the same weighting."""
    torch.manual_seed(0)
    losses = []
    for kind in ("epsilon", "sample", "v_prediction"):
        process = DiffusionProcess(SCHEDULE | {"prediction_type": kind}, weighting="min-snr")
        noised = process.noised(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([300, 700]))
        snr = signal_to_noise(process.scheduler.alphas_cumprod)[noised.timestep]
        error = {"sample": torch.ones(2), "epsilon": snr.sqrt(), "v_prediction": (1 + snr).sqrt()}[kind]
        losses.append(float(squared_errors(noised.target + error[:, None], noised).mean()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[2] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_stops_at_gamma(gamma: float) -> None:
    """The weight of an error of x is min(snr, gamma) (arXiv:2303.09556, section 3.4); of one of eps, that over snr."""
    process = DiffusionProcess(SCHEDULE | {"prediction_type": "epsilon"}, weighting="min-snr", gamma=gamma)
    snr = signal_to_noise(process.scheduler.alphas_cumprod.double())
    torch.testing.assert_close(process.weights.double(), snr.clamp(max=gamma) / snr, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_frames_share_as_much_noise_as_their_scheme_says(share: float) -> None:
    scheme = resolve_scheme("make-a-video").changed(shared_noise=share)
    torch.manual_seed(0)
    noise = frame_noise(torch.zeros(2, 4, 3, 64, 64), scheme, torch.tensor([4.0, 24.0]))
    first, _, third = noise.transpose(1, 2).flatten(2).unbind(1)
    assert first.var(dim=1).tolist() == pytest.approx([1, 1], abs=0.05)
    assert (first * third).mean(dim=1).tolist() == pytest.approx([share, share], abs=0.03)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.03, "videos share none"


class _Told(DenoisingStep):
    """A network that answers what it is told: 1, or 0 in guidance's other branch."""

    unit = "things"

    def __init__(self, dropout: float) -> None:
        self.trained, self.device, self.condition_dropout = None, torch.device("cpu"), dropout
        self.process = DiffusionProcess(SCHEDULE)

    def problem(self, batch: Any) -> Problem:
        clean, one = torch.zeros(4000, 1), torch.ones(4000, 1)
        return Problem(clean, clean, lambda network, z, t, told: told["x"], {"x": one}, {"x": torch.zeros(4000, 1)})


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.7])
def test_a_share_of_the_batch_is_told_nothing(dropout: float) -> None:
    torch.manual_seed(0)
    step = _Told(dropout)
    problem = step.problem({})
    told = step.answer(problem, step.noised(problem), None)
    assert float(told.mean()) == pytest.approx(1 - dropout, abs=0.03)


def test_with_zero_terminal_snr_the_last_step_is_noise_and_its_target_the_picture() -> None:
    config = schedule_of("", "v_prediction", True)
    process = DiffusionProcess(config, weighting="v")
    clean, noise = torch.randn(2, 4), torch.randn(2, 4)
    noised = process.noised(clean, noise, torch.tensor([999, 999]))
    assert float(process.scheduler.alphas_cumprod[-1]) < 1e-6
    assert torch.allclose(noised.noisy, noise, atol=1e-3)
    assert torch.allclose(noised.target, -clean, atol=1e-3)
    assert squared_errors(noised.target + 0.5, noised).tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("theirs", [DDIMScheduler, EulerDiscreteScheduler, DDPMScheduler])
def test_any_schedulers_folder_says_the_schedule(theirs: type, tmp_path: Path) -> None:
    theirs(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(tmp_path)
    config = schedule_of(str(tmp_path))
    assert config["prediction_type"] == "epsilon" and "rescale_betas_zero_snr" not in config
    wanted = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    assert torch.equal(DiffusionProcess(config, weighting="snr").scheduler.alphas_cumprod, wanted)


def test_a_power_favours_high_noise() -> None:
    """``T (1 - (1 - u)^p)``: the share of times above half of T is ``2^(-1/p)``, and 1 draws evenly, bit for bit."""
    uniform = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    for power in (1.0, 1.6, 3.0):
        times = DiffusionProcess(SCHEDULE, power=power).times(uniform)
        assert float((times >= 500).double().mean()) == pytest.approx(0.5 ** (1 / power), abs=2e-3)
    even = DiffusionProcess(SCHEDULE)
    assert torch.equal(even.times(uniform), even.levels(uniform))
    with pytest.raises(InputError, match="timestep_power is 0"):
        DiffusionProcess(SCHEDULE, power=0)


def test_errors_are_counted_where_they_count() -> None:
    process = DiffusionProcess(SCHEDULE, weighting="v")
    noised = process.noised(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), torch.tensor([10, 900]))
    wrong = torch.tensor([[[1.0, 2.0, 100.0, 100.0]], [[100.0, 100.0, 100.0, 3.0]]])
    counts = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]])
    assert squared_errors(wrong, noised, counts).tolist() == pytest.approx([2.5, 9.0])


def test_an_epsilon_model_becomes_a_v_model(videos: Path, tiny_family: Path, tmp_path: Path) -> None:
    """Its image model's scheduler says eps; after the fine-tune the exported one says v."""
    DDPMScheduler(beta_schedule="linear", prediction_type="epsilon").save_pretrained(tmp_path / "eps")
    eps = {"clip": str(tiny_family / "clip"), "vae": str(tiny_family / "vae"), "init": str(tiny_family / "unet")}
    eps |= {"scheduler": str(tmp_path / "eps"), "weighting": "snr"}
    first = train(family_recipe("decoder", videos, tmp_path / "first", eps), device="cpu", quiet=True)
    written = json.loads((first / "scheduler/scheduler_config.json").read_text())
    assert (written["prediction_type"], written["beta_schedule"]) == ("epsilon", "linear")

    then = eps | {"init": str(first / "unet"), "scheduler": str(first / "scheduler"), "weighting": "truncated-snr"}
    then |= {"predict": "v_prediction", "zero_terminal_snr": True}
    assert schedule_of(start=str(first / "unet"))["prediction_type"] == "epsilon", "the scheduler beside it is asked"
    second = train(family_recipe("decoder", videos, tmp_path / "second", then), device="cpu", quiet=True)
    found: Any = DPMSolverMultistepScheduler.from_pretrained(second / "scheduler")
    assert found.config["prediction_type"] == "v_prediction" and found.config["timestep_spacing"] == "trailing"
    assert found.config["rescale_betas_zero_snr"] and found.config["beta_schedule"] == "linear"

    video = family_options("video-decoder", tiny_family)
    video |= {"image_model": str(second / "unet"), "scheduler": str(second / "scheduler")}
    third = train(family_recipe("video-decoder", videos, tmp_path / "third", video), device="cpu", quiet=True)
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
    file = tmp_path / "eps" / "scheduler_config.json"
    for content, sentence in (
        ("[1]", "holds no object of settings: it is damaged"),
        ("null", "holds no object of settings"),
        ("{", "is not readable as JSON"),
        ("[" * 100_000, "is not readable as JSON"),
        ('{"beta_schedule": "no such"}', "describes no noise schedule"),
        ('{"num_train_timesteps": "many"}', "describes no noise schedule"),
        ('{"trained_betas": {}}', "describes no noise schedule"),
        ('{"prediction_type": ["epsilon"]}', "is unknown"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=sentence) as caught:
            schedule_of(str(tmp_path / "eps"))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'v_predicton' is unknown"):
        schedule_of("", "v_predicton")
    assert sampler_of(schedule_of()).config["timestep_spacing"] == "trailing"
