"""Distillation against what is known exactly: networks linear in their input, whose students can be perfect."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler
from torch import Tensor, nn

import inflate
from inflate.errors import InputError
from inflate.models.decoder import sample_latents
from inflate.sampling.loop import denoise
from inflate.schedulers import AngularDDIMScheduler
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.distill import distill, phases_of
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions
from inflate.train.step import TRAIN_STEPS
from inflate.train.steps.distillation import DistillationOptions, build, student_scheduler, trailing_timesteps

ABOUT = About("a test", "none", "CPU", "seconds", "none")
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
SPREAD = 0.5  # standard deviation of the toy's data


class Linear(nn.Module):
    """v = gain(t) z + condition * pull: for data N(0, s^2), the exact network with gain = v's regression on z."""

    def __init__(self) -> None:
        super().__init__()
        kept = DDPMScheduler(**SCHEDULE).alphas_cumprod.double()
        alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        exact = alpha * sigma * (1 - SPREAD**2) / (alpha.square() * SPREAD**2 + sigma.square())
        self.gain = nn.Parameter(exact.float())
        self.pull = nn.Parameter(torch.tensor(0.25))

    def forward(self, z: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.gain[timestep][:, None] * z + self.pull * condition


class ToyStep(DenoisingStep):
    """What distillation needs of a step."""

    unit = "images"

    def __init__(self, condition: float) -> None:
        self.trained = Linear()
        self.process = DiffusionProcess(SCHEDULE)
        self.condition = condition

    def draw(self, update: int, first: int, batch_size: int) -> dict[str, Any]:
        return {"clean": SPREAD * torch.randn(batch_size, 8)}

    def problem(self, batch: dict[str, Any]) -> Problem:
        clean = batch["clean"]
        given = {"condition": torch.full_like(clean, self.condition)}

        def call(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Tensor]) -> Tensor:
            return network(noisy, timestep, **conditions)

        return Problem(clean, torch.randn_like(clean), call, given, {"condition": torch.zeros_like(clean)})

    def sheet(self, path: Path) -> None: ...

    def export(self, folder: Path) -> None: ...


def toy(condition: float = 0.0) -> Any:
    """As a builder in TRAIN_STEPS."""
    return lambda recipe, device: ToyStep(condition)


build_plain, build_told = toy(), toy(1.0)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAIN_STEPS, "plain", f"{__name__}:build_plain")
    monkeypatch.setitem(TRAIN_STEPS, "told", f"{__name__}:build_told")


def toy_step(of: str, method: str, steps: int, **options: Any) -> Any:
    table = {"of": of, "method": method, "num_inference_steps": steps, **options}
    train = TrainOptions(steps=1, batch_size=1, learning_rate=1.0, warmup_steps=0)
    return build(Recipe("t", "distillation", ABOUT, DataOptions("none"), train, table), torch.device("cpu"))


def learn(step: Any, updates: int, rate: float) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(step.trained.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    for update in range(updates):
        optimizer.zero_grad()
        step(step.draw(update, 0, 32)).total.backward()
        optimizer.step()
        schedule.step()


def sampled(network: Any, noise: Tensor, steps: int, scheduler: Any = None) -> Tensor:
    scheduler = scheduler or DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing="trailing")
    none = torch.zeros_like(noise)
    with torch.no_grad():
        return denoise(scheduler, lambda z, t: network(z, t.expand(len(z)), none), noise, steps)


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 64])
def test_timesteps_are_diffusers_trailing_ones(steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    grid = trailing_timesteps(steps, 1000)
    assert grid[0] == -1 and torch.equal(grid[1:].flip(0), torch.as_tensor(scheduler.timesteps))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_perfect_student_samples_as_its_teacher_in_half_the_steps(steps: int) -> None:
    step, noise = toy_step("plain", "progressive", steps), torch.randn(4, 8)
    before = sampled(step.trained, noise, steps)
    learn(step, 400, 0.05)
    wanted = sampled(step.teacher, noise, 2 * steps)
    assert torch.allclose(sampled(step.trained, noise, steps), wanted, atol=2e-3)
    assert (before - wanted).abs().max() > 0.02, "the toy must be one that needs distilling"


def test_guidance_at_one_scale_goes_into_the_weights() -> None:
    step = toy_step("told", "guidance", 4, guidance_range=[3.0, 3.0])
    learn(step, 300, 0.05)
    assert float(step.trained.pull.detach()) == pytest.approx(0.75, abs=1e-3)
    assert float(step.teacher.pull) == 0.25, "the teacher stays"


def test_a_first_phase_without_one_of_guidance_has_it_all_the_same() -> None:
    step = toy_step("told", "progressive", 1, guidance_range=[3.0, 3.0])
    again = toy_step("told", "progressive", 1, guidance_range=[3.0, 3.0], guided=True)
    torch.manual_seed(0)
    unguided = float(step(step.draw(0, 0, 32)).total.detach())
    torch.manual_seed(0)
    guided = float(again(again.draw(0, 0, 32)).total.detach())
    assert unguided > 2 * guided


def test_a_consistent_student_points_at_the_end_of_its_teachers_path() -> None:
    step, noise = toy_step("plain", "consistency", 8), torch.randn(64, 8)
    learn(step, 1500, 0.05)
    wanted = sampled(step.teacher, noise, 8)
    student = LCMScheduler(**SCHEDULE, original_inference_steps=8, clip_sample=False)
    for steps in (1, 2):
        made = sampled(step.trained, noise, steps, student)
        assert made.std() == pytest.approx(float(wanted.std()), rel=0.1)
    one = sampled(step.trained, noise, 1, student)
    assert torch.allclose(one, wanted, atol=0.05)
    assert (sampled(step.teacher, noise, 1, student) - wanted).abs().max() > 0.2


def _recipe(videos: Path, family: Path, output: Path, **options: Any) -> Recipe:
    inner = {"clip": str(family / "clip"), "vae": str(family / "vae"), "image_model": str(family / "unet")}
    table = {
        "of": "video-decoder",
        "phases": ["guidance", "2", "1"],
        "updates": [2],
        "guidance_range": [1.0, 4.0],
        "step": inner | {"num_frames": 4, "init": str(family / "video")},
    }
    train = TrainOptions(steps=1, batch_size=2, learning_rate=1e-3, warmup_steps=0, log_every=1, sample_every=0)
    data = DataOptions(str(videos), 32, ("clip",))
    return Recipe("t", "distill", ABOUT, data, train, table | options, str(output))


def test_phases_follow_each_other_and_are_not_done_twice(videos: Path, tiny_family: Path, tmp_path: Path) -> None:
    recipe = _recipe(videos, tiny_family, tmp_path / "run")
    exports = distill(recipe, device="cpu", quiet=True)
    assert [path.parent.name for path in exports] == ["guidance", "2", "1"]
    times = [(path / "unet/temporal.safetensors").stat().st_mtime_ns for path in exports]
    assert distill(recipe, device="cpu", quiet=True) == exports
    assert [(path / "unet/temporal.safetensors").stat().st_mtime_ns for path in exports] == times

    scheduler: Any = AngularDDIMScheduler.from_pretrained(exports[1] / "student_scheduler")
    assert scheduler.config["num_inference_steps"] == 2 and scheduler.config["timestep_spacing"] == "trailing"
    scheduler.set_timesteps()
    assert scheduler.timesteps.tolist() == [999, 499]
    student = inflate.load(exports[2] / "unet", dtype=torch.float32)
    assert student.scheme.guidance_range == (1.0, 4.0)
    calls = []
    student.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[0]))
    embeds = torch.randn(1, 32)
    options: dict[str, Any] = {"num_inference_steps": 2, "fps": 8.0}
    low, high = (
        sample_latents(
            student, scheduler, embeds, guidance_scale=scale, generator=torch.Generator().manual_seed(0), **options
        )
        for scale in (1.0, 4.0)
    )
    assert calls == [1] * 4, "one evaluation per step, with guidance or without"
    assert not torch.equal(low, high)
    with pytest.raises(InputError, match="knows scales from 1 to 4"):
        sample_latents(student, scheduler, embeds, guidance_scale=9.0, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "clip"}, "what can be distilled is prior"),
        ({"phases": ["8", "2"]}, "each phase halves their number"),
        ({"phases": ["quick"]}, "use 'guidance', 'consistency' or a number"),
        ({"updates": [1, 2]}, "2 numbers for 3 phases"),
        ({"step": {}}, "name the folder of the teacher"),
    ],
)
def test_bad_recipes_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        phases_of(_recipe(tmp_path, tmp_path, tmp_path, **options))


def test_what_is_no_denoiser_is_refused(videos: Path, tiny_family: Path, tmp_path: Path) -> None:
    model = {"latent_channels": 4}
    table = {"of": "autoencoder", "method": "progressive", "num_inference_steps": 4, "step": {"model": model}}
    train = TrainOptions(steps=1, batch_size=1, learning_rate=1.0, warmup_steps=0)
    recipe = Recipe("t", "distillation", ABOUT, DataOptions(str(videos), 32), train, table)
    with pytest.raises(InputError, match="cannot be distilled"):
        build(recipe, torch.device("cpu"))


@pytest.mark.parametrize("method", ["progressive", "consistency"])
def test_a_student_samples_on_its_teachers_schedule(method: str) -> None:
    teacher = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    options = DistillationOptions("video-decoder", method, 8)
    student = student_scheduler(dict(teacher.config), options)
    torch.testing.assert_close(student.alphas_cumprod.double(), teacher.alphas_cumprod.double(), rtol=1e-5, atol=1e-9)
    assert student.config.prediction_type == "v_prediction"


def test_the_phase_after_guidance_may_have_the_first_teacher_again() -> None:
    options = {"of": "video-decoder", "phases": ["guidance", "8", "4"], "updates": [1], "teacher": "t"}
    train = TrainOptions(steps=1, batch_size=1, learning_rate=1e-3, warmup_steps=0)
    recipe = Recipe("r", "distill", ABOUT, DataOptions("d", 8), train, {**options, "step": {"init": "i"}})
    found = [(phase.options["teacher"], phase.options["guided"]) for phase in phases_of(recipe)]
    assert found == [("t", False), ("t", False), ("", True)]
    without = replace(recipe, options=recipe.options | {"teacher": ""})
    assert [phase.options["guided"] for phase in phases_of(without)] == [False, True, True]
