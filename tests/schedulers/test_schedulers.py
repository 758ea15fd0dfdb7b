"""Our samplers against diffusers' own over whole runs, in its pipelines, and from its configs."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch import Tensor

import inflate.schedulers
from inflate.components import read_diffusers_component
from inflate.errors import InputError
from inflate.sampling.loop import denoise
from inflate.schedulers import (
    SCHEDULERS,
    AncestralScheduler,
    AngularDDIMScheduler,
    PredictorCorrectorScheduler,
    StochasticDDIMScheduler,
)

CONFIGS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "zero": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def network(z: Tensor, timestep: Any) -> Tensor:
    """Not linear, not the same at all timesteps, and each element looks at its neighbour."""
    return 0.8 * torch.tanh(1.3 * z + 0.4 * z.roll(1, -1) - float(timestep) / 700)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(scheduler: Any, z: Tensor, steps: int = 10, **options: Any) -> list[Tensor]:
    scheduler.set_timesteps(steps)
    path = []
    for timestep in scheduler.timesteps:
        z = scheduler.step(network(z, timestep), timestep, z, **options).prev_sample
        path.append(z)
    return path


def in_float64(scheduler: Any) -> Any:
    """diffusers' formulas on the same numbers, without its rounding to float32."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0)).double()
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


@pytest.mark.reference
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", CONFIGS)
def test_angular_ddim_is_ddim(schedule: str, prediction: str) -> None:
    config = CONFIGS[schedule] | {"prediction_type": prediction, "clip_sample": False}
    if schedule == "zero" and prediction == "epsilon":
        config["timestep_spacing"] = "leading"  # at alpha = 0 diffusers divides by 0
    theirs = diffusers.DDIMScheduler(**config)
    ours = AngularDDIMScheduler.from_config(theirs.config)
    start = noise(2, 3, 4, 5)
    for made, expected in zip(run(ours, start), run(in_float64(theirs), start), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)
    moved = (run(ours, start)[-1] - start).abs().max()
    assert moved > 0.1, "the run went somewhere"


@pytest.mark.reference
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_angular_ddim_is_ddim_as_shipped(prediction: str) -> None:
    # float32 as diffusers rounds it, per step from its own path.
    config = CONFIGS["squaredcos_cap_v2"] | {"prediction_type": prediction, "clip_sample": False}
    theirs: Any = diffusers.DDIMScheduler(**config)
    ours: Any = AngularDDIMScheduler.from_config(theirs.config)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    z = noise(2, 3, 4, 5).float()
    for timestep in theirs.timesteps:
        made, expected = (one.step(network(z, timestep), timestep, z) for one in (ours, theirs))
        torch.testing.assert_close(made.prev_sample, expected.prev_sample, rtol=1e-6, atol=1e-6)
        assert made.prev_sample.dtype == torch.float32
        z = expected.prev_sample


@pytest.mark.reference
@pytest.mark.parametrize("clip", [{"clip_sample": True, "clip_sample_range": 0.5}, {"thresholding": True}])
@pytest.mark.parametrize("largest", [1.0, 1.2])
def test_a_clipped_x_carries_v_with_it(clip: dict[str, Any], largest: float) -> None:
    config: dict[str, Any] = {"prediction_type": "v_prediction", "clip_sample": False, "sample_max_value": largest}
    config |= {"dynamic_thresholding_ratio": 0.9} | clip
    theirs = in_float64(diffusers.DDIMScheduler(**config))
    ours = AngularDDIMScheduler.from_config(theirs.config)
    start = 2 * noise(2, 3, 4, 5)
    expected = run(theirs, start, use_clipped_model_output=True)[-1]
    torch.testing.assert_close(run(ours, start)[-1], expected, rtol=1e-6, atol=1e-6)
    assert (expected - run(theirs, start)[-1]).abs().max() > 1e-3, "diffusers' default is another sampler"


def test_the_numbers_of_e12() -> None:
    scheduler = AngularDDIMScheduler(thresholding=True, dynamic_thresholding_ratio=1.0, sample_max_value=4.0)
    x = torch.tensor([[0.5, -1, 2, -4]], dtype=torch.float64)
    assert scheduler._clipped(x).tolist() == [[0.125, -0.25, 0.5, -1]]
    plain = AngularDDIMScheduler(thresholding=True, dynamic_thresholding_ratio=1.0)
    assert plain._clipped(x).tolist() == [[0.5, -1, 1, -1]], "diffusers' default sample_max_value only clips"
    assert scheduler._clipped(x / 8).tolist() == (x / 8).tolist(), "nothing is stretched"


@pytest.mark.reference
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("gamma", "variance"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
def test_ancestral_is_ddpm(gamma: float, variance: str, prediction: str) -> None:
    config = {"variance_type": variance, "clip_sample": False, "prediction_type": prediction}
    theirs = in_float64(diffusers.DDPMScheduler(**config))  # pyright: ignore[reportArgumentType]
    ours = AncestralScheduler.from_config(theirs.config, gamma=gamma)
    z = noise(2, 3, 4, 5)
    ours.set_timesteps(8)
    theirs.set_timesteps(8)
    for timestep in theirs.timesteps:
        # The reference draws in the sample's dtype, ours in float32: the draw is taken from the difference to a mean.
        drawn = torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
        made = ours.step(network(z, timestep), timestep, z, generator=torch.Generator().manual_seed(5)).prev_sample
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: drawn.double())  # noqa: B023
            expected = theirs.step(network(z, timestep), timestep, z).prev_sample  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)
        z = expected


def test_gamma_between_lies_between() -> None:
    spreads = []
    for gamma in (0.0, 0.3, 1.0):
        scheduler = AncestralScheduler(prediction_type="v_prediction", gamma=gamma)
        scheduler.set_timesteps(5)
        z = noise(4, 1000)
        made = scheduler.step(0 * z, scheduler.timesteps[2], z, generator=torch.Generator().manual_seed(1))
        mean = scheduler.step(0 * z, scheduler.timesteps[2], z, generator=torch.Generator().manual_seed(2))
        spreads.append(float((made.prev_sample - mean.prev_sample).std()))
    assert spreads[0] < 0.95 * spreads[1] < 0.9 * spreads[2]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_finite_from_pure_noise_on(name: str, prediction: str) -> None:
    scheduler = SCHEDULERS[name](prediction_type=prediction, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.level(999).alpha == 0
    path = run(scheduler, noise(2, 3, 4, 5), 4, generator=torch.Generator().manual_seed(0))
    assert all(torch.isfinite(z).all() for z in path)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_last_step_is_the_clean_sample(name: str) -> None:
    scheduler = SCHEDULERS[name](prediction_type="sample")
    for steps in (1, 5):
        scheduler.set_timesteps(steps)
        z = noise(1, 3, 4, 4)
        for timestep in scheduler.timesteps:
            out = scheduler.step(network(z, timestep), timestep, z, generator=torch.Generator().manual_seed(0))
            last, z = z, out.prev_sample
        torch.testing.assert_close(z, network(last, scheduler.timesteps[-1]))
        torch.testing.assert_close(z, out.pred_original_sample)


def test_the_stochastic_sampler_goes_two_steps_and_comes_back_one() -> None:
    scheduler = StochasticDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    ahead = AngularDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    ahead.set_timesteps(2)  # 999, 499: every other of 999, 749, 499, 249
    z, seed = noise(2, 3, 4, 5), torch.Generator().manual_seed(0)
    made = scheduler.step(network(z, 999), 999, z, generator=seed).prev_sample
    beyond = ahead.step(network(z, 999), 999, z).prev_sample
    drawn = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).double()
    a, b = scheduler.alphas_cumprod[499].double(), scheduler.alphas_cumprod[749].double()
    torch.testing.assert_close(made, (b / a).sqrt() * beyond + (1 - b / a).sqrt() * drawn, rtol=1e-9, atol=1e-9)
    # One step before the last, the DDIM step ends at the clean sample.
    out = scheduler.step(network(z, 499), 499, z, generator=torch.Generator().manual_seed(0))
    a = scheduler.alphas_cumprod[249].double()
    torch.testing.assert_close(out.prev_sample, a.sqrt() * out.pred_original_sample + (1 - a).sqrt() * drawn)


def test_the_corrector_evaluates_between_the_steps() -> None:
    delta = 0.3
    scheduler = PredictorCorrectorScheduler(prediction_type="v_prediction", corrector_steps=2, corrector_delta=delta)
    scheduler.set_timesteps(3)
    first, second, third = sorted(set(scheduler.timesteps.tolist()), reverse=True)
    assert scheduler.timesteps.tolist() == [first, *[second] * 3, *[third] * 3] and scheduler.order == 3
    z = noise(2, 3, 4, 5)
    ancestral = AncestralScheduler(prediction_type="v_prediction")
    ancestral.set_timesteps(3)
    seeds = iter(range(10))
    for number, timestep in enumerate(scheduler.timesteps):
        seed = next(seeds)
        out = network(z, timestep)
        made = scheduler.step(out, timestep, z, generator=torch.Generator().manual_seed(seed)).prev_sample
        if number % 3 == 0:
            expected = ancestral.step(out, timestep, z, generator=torch.Generator().manual_seed(seed)).prev_sample
        else:
            at = scheduler.level(timestep)
            eps = at.sigma * z + at.alpha * out
            drawn = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).double()
            expected = z - delta / 2 * at.sigma * eps + delta**0.5 * at.sigma * drawn
        torch.testing.assert_close(made, expected)
        z = made
    assert scheduler.step_index == 7
    # Without corrections it is the ancestral sampler; begun in the middle, its first step is an ancestral one.
    plain = PredictorCorrectorScheduler(prediction_type="v_prediction", corrector_steps=0)
    start = noise(1, 3, 4, 4)
    same = [run(one, start, 5, generator=torch.Generator().manual_seed(3))[-1] for one in (plain, ancestral)]
    assert torch.equal(*same)
    scheduler.set_timesteps(3)
    scheduler.step(z, second, z)
    assert scheduler.step_index == 4
    # A second run knows nothing of a first that was broken off after its second step, at the first correction.
    scheduler.set_timesteps(3)
    for timestep in (first, second):
        scheduler.step(z, timestep, z)
    scheduler.set_begin_index(1)
    scheduler.set_timesteps(3)
    assert scheduler.step_index is None and scheduler.begin_index is None
    scheduler.step(z, second, z)
    assert scheduler.step_index == 4


@pytest.mark.parametrize("name", ["AncestralScheduler", "PredictorCorrectorScheduler", "StochasticDDIMScheduler"])
def test_seeds_and_one_generator_per_sample(name: str) -> None:
    scheduler = SCHEDULERS[name](prediction_type="v_prediction")

    def seeded(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    z = noise(2, 3, 4, 4).float()
    both = denoise(scheduler, network, z, 4, seeded(1, 2))
    assert torch.equal(both, denoise(scheduler, network, z, 4, seeded(1, 2)))
    torch.testing.assert_close(both[1:], denoise(scheduler, network, z[1:], 4, seeded(2)))
    assert not torch.allclose(both, denoise(scheduler, network, z, 4, seeded(3, 4)))


def _foreign() -> list[Any]:
    solver = diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    heun = diffusers.HeunDiscreteScheduler(beta_schedule="exp", beta_start=0.1, beta_end=0.2)
    return [
        diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
        diffusers.DDPMScheduler(beta_schedule="sigmoid"),
        diffusers.PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing"),
        diffusers.EulerDiscreteScheduler(trained_betas=[0.01, 0.02, 0.03], num_train_timesteps=3),
        diffusers.LCMScheduler(),
        diffusers.UniPCMultistepScheduler(),
        diffusers.CogVideoXDDIMScheduler(),
        diffusers.CogVideoXDDIMScheduler(rescale_betas_zero_snr=True),
        UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        solver,
        heun,
    ]


@pytest.mark.reference
@pytest.mark.parametrize("theirs", _foreign(), ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_from_any_config_the_schedule_is_kept(theirs: Any, name: str, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    for ours in (SCHEDULERS[name].from_config(theirs.config), SCHEDULERS[name].from_pretrained(tmp_path)):
        torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod.float(), rtol=1e-5, atol=1e-6)
        for key in ("prediction_type", "timestep_spacing", "clip_sample_range", "steps_offset"):
            if key in theirs.config:
                assert ours.config[key] == theirs.config[key]
        assert ours.config["clip_sample"] == theirs.config.get("clip_sample", False), "nothing is clipped unasked"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    kept = {"gamma": 0.3} if "Ancestral" in name or "Predictor" in name else {}
    scheduler = SCHEDULERS[name].from_config(diffusers.DDIMScheduler().config, prediction_type="v_prediction", **kept)
    scheduler.save_pretrained(tmp_path / "scheduler")
    written = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert written["_class_name"] == name and written.items() >= kept.items()
    assert type(scheduler).__module__ == "inflate.schedulers"
    for library in ("inflate", "inflate.schedulers"):
        loaded = read_diffusers_component(tmp_path / "scheduler", library, name, torch.float32)
        assert type(loaded) is type(scheduler) and loaded.config.prediction_type == "v_prediction"
        assert dict(loaded.config).items() >= kept.items()
    with pytest.raises(InputError, match="only diffusers' own will do"):
        read_diffusers_component(tmp_path / "scheduler", "inflate", "DDIMScheduler", torch.float32)
    back: Any = diffusers.DDIMScheduler.from_config(scheduler.config)
    assert torch.equal(back.alphas_cumprod, scheduler.alphas_cumprod)


def test_what_cannot_be_sampled_is_refused() -> None:
    for flow in (diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.EDMEulerScheduler()):
        with pytest.raises(InputError, match="no alphas_cumprod"):
            AngularDDIMScheduler.from_config(flow.config)
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        AngularDDIMScheduler.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    with pytest.raises(InputError, match="samples a flow"):
        AngularDDIMScheduler.from_config({"use_flow_sigmas": True, "beta_schedule": "linear"})
    with pytest.raises(InputError, match="cannot sample prediction_type 'flow_prediction'"):
        AngularDDIMScheduler(prediction_type="flow_prediction")
    with pytest.raises(InputError, match=r"gamma is 1\.5"):
        AncestralScheduler(gamma=1.5)
    with pytest.raises(InputError, match=r"corrector_delta is 5"):
        PredictorCorrectorScheduler(corrector_delta=5)
    with pytest.raises(InputError, match="corrector_steps is -1"):
        PredictorCorrectorScheduler(corrector_steps=-1)
    scheduler = PredictorCorrectorScheduler()
    scheduler.set_timesteps(4)
    with pytest.raises(InputError, match="3 is not among this scheduler's timesteps"):
        scheduler.step(torch.zeros(1, 1), 3, torch.zeros(1, 1))
    with pytest.raises(InputError, match="cannot sample in 2000 steps"):
        denoise(AngularDDIMScheduler(), network, torch.zeros(1, 1), 2000)


@pytest.mark.reference
def test_noise_and_velocity_are_those_of_diffusers() -> None:
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    ours = AngularDDIMScheduler.from_config(theirs.config)
    x, eps = noise(2, 3, 2, 4, 4).float()[:, None].unbind(0)
    steps = torch.tensor([400])
    torch.testing.assert_close(ours.add_noise(x, eps, steps), theirs.add_noise(x, eps, steps))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(ours.get_velocity(x, eps, steps), theirs.get_velocity(x, eps, steps))  # pyright: ignore[reportArgumentType]
    assert len(ours) == 1000 and ours.init_noise_sigma == 1 and ours.scale_model_input(x, 3) is x


def test_a_learned_variance_is_left_aside() -> None:
    scheduler = AngularDDIMScheduler(prediction_type="v_prediction")
    scheduler.set_timesteps(3)
    z = noise(2, 3, 4, 4)
    t = scheduler.timesteps[0]
    both = torch.cat([network(z, t), noise(2, 3, 4, 4, seed=9)], dim=1)
    assert torch.equal(scheduler.step(both, t, z)[0], scheduler.step(network(z, t), t, z, return_dict=False)[0])


def _pipeline(scheduler: Any) -> diffusers.StableDiffusionPipeline:
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **blocks,  # pyright: ignore[reportArgumentType]
    )
    vae = diffusers.AutoencoderKL(latent_channels=4, sample_size=16, **_vae_blocks())
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,  # pyright: ignore[reportArgumentType]
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _vae_blocks() -> dict[str, Any]:
    return {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }


@pytest.mark.reference
@pytest.mark.parametrize("name", SCHEDULERS)
def test_in_a_pipeline_of_diffusers(name: str, tmp_path: Path) -> None:
    config = {**CONFIGS["scaled_linear"], "clip_sample": False, "set_alpha_to_one": False}
    pipeline = _pipeline(diffusers.DDIMScheduler(**config))
    embeds = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))

    def made(generator: Any) -> Tensor:
        options: Any = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "latent"}
        out = pipeline(prompt_embeds=embeds, negative_prompt_embeds=-embeds, generator=generator, **options)
        return out.images  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]

    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    reference = made(seeds)
    pipeline.scheduler = SCHEDULERS[name].from_config(pipeline.scheduler.config)
    ours = made([torch.Generator().manual_seed(seed) for seed in (1, 2)])
    assert torch.isfinite(ours).all() and ours.shape == (2, 4, 8, 8)
    if name == "AngularDDIMScheduler":
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    else:
        assert not torch.allclose(ours, reference, atol=1e-2)
    # A folder that a pipeline writes with our sampler in it comes back with it.
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["inflate.schedulers", name]
    without: Any = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder"))
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, **without)
    assert type(loaded.scheduler) is SCHEDULERS[name]


def test_names_are_found_in_the_package() -> None:
    assert all(getattr(inflate.schedulers, name) is found for name, found in SCHEDULERS.items())
