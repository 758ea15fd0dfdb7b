"""Options of guidance change samples as their formulas say, through the samplers of both kinds of decoder."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from inflate.diffusion.guidance import GuidanceOptions, dynamic_threshold
from inflate.errors import InputError
from inflate.inflater import SCHEMES, inflate
from inflate.models.decoder import sample_latents
from inflate.models.foreign import sample_frames
from inflate.stages import StageSettings
from tests.models.tiny_family import WIDTH, tiny_cascade, tiny_unet, tiny_video_unet

STEPS, SCALE = 8, 3.0
CHANGES: list[dict[str, float]] = [
    {},
    {"guidance_rescale": 0.7},
    {"guidance_oscillate": 1.0},
    {"guidance_oscillate": 1.5, "guidance_rescale": 0.3},
    {"threshold": 0.9},
    {"threshold": 0.5, "guidance_rescale": 1.0},
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ddim() -> Any:
    return DDIMScheduler(prediction_type="v_prediction", clip_sample=False, beta_schedule="scaled_linear")


class Fake(torch.nn.Module):
    """Predicts what follows from sample, time and condition alone, and so large that samples go beyond [-1, 1]."""

    config: Any = tiny_unet().config
    dtype = torch.float32

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor, **rest: Tensor) -> Any:
        told = class_labels.sum(dim=-1).reshape(-1, *[1] * (sample.ndim - 1))
        made = (sample * (1 + 0.3 * told)).sin() - 0.7 * sample * told.cos() + float(timestep) / 2000
        return type("Output", (), {"sample": made})


def reference(noise: Tensor, labels: Tensor, options: dict[str, float]) -> Tensor:
    """The sampler written out, videos (1, c, F, h, w): DDIM from x and eps in float64, diffusers' own rescaling."""
    scheduler, model = ddim(), Fake()
    scheduler.set_timesteps(STEPS)
    z = noise.double()
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        scale = SCALE if step < STEPS // 4 or (step - STEPS // 4) % 2 else options.get("guidance_oscillate", SCALE)
        given = model(z, timestep, labels.double()).sample
        blank = model(z, timestep, torch.zeros_like(labels).double()).sample
        made = blank + scale * (given - blank)
        if scale != 1 and "guidance_rescale" in options:
            made = rescale_noise_cfg(made, given, options["guidance_rescale"])
        earlier = timestep - 1000 // STEPS
        at = scheduler.alphas_cumprod[timestep].double()
        to = (scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod).double()
        x = at.sqrt() * z - (1 - at).sqrt() * made
        if "threshold" in options:
            x = dynamic_threshold(x, options["threshold"])
        eps = (z - at.sqrt() * x) / (1 - at).sqrt()
        z = to.sqrt() * x + (1 - to).sqrt() * eps
    return z.float()


@pytest.mark.parametrize("options", CHANGES, ids=str)
def test_each_option_changes_the_sample_as_its_formula_says(options: dict[str, Any]) -> None:
    embeds = torch.nn.functional.normalize(draw(1, WIDTH, seed=1))
    labels, noise = embeds * WIDTH**0.5, draw(1, 4, 1, 4, 4, seed=2)
    wanted = reference(noise, labels, options)
    settings = StageSettings(STEPS, SCALE, **options)
    told = {"class_labels": torch.cat([torch.zeros_like(labels), labels])}
    made = sample_frames(Fake(), ddim(), told, noise, settings)
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)
    generator = torch.Generator().manual_seed(2)
    own = sample_latents(
        Fake(),
        ddim(),
        embeds,
        1,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=generator,
        options=settings,
    )
    torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-4)
    apart = (wanted - reference(noise, labels, {})).abs().max()
    assert not options or apart > 0.05, "the case must differ from plain guidance"


def test_a_long_video_is_thresholded_as_a_whole() -> None:
    one_step = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    made = sample_latents(
        tiny_video_unet(), one_step, draw(1, WIDTH), 10, 8.0, num_inference_steps=1, guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0), options=GuidanceOptions(threshold=0.8),
    )  # fmt: skip
    # A single step ends at the clean sample itself: a fifth of its numbers were cut, not a fifth of each frame's.
    cut = (made.abs() > 1 - 1e-3).float()
    assert made.shape[2] == 10 and made.abs().max() <= 1 + 1e-3
    assert abs(float(cut.mean()) - 0.2) < 0.005
    by_frame = cut.mean(dim=(0, 1, 3, 4))
    assert by_frame.max() - by_frame.min() > 0.05


def test_latents_are_not_thresholded() -> None:
    with pytest.raises(InputError, match="this decoder draws latents, which lie beyond; leave it out"):
        tiny_cascade()("red", 4, threshold=0.9, num_inference_steps=2)


def test_a_distilled_model_is_told_both_scales_and_is_not_rescaled() -> None:
    scheme = SCHEMES["make-a-video"].changed(guidance_range=(1.0, 4.0))
    model, told = inflate(tiny_unet(), scheme, num_frames=4), []
    model.register_forward_pre_hook(
        lambda module, inputs, given: told.append(given["guidance_scale"]), with_kwargs=True
    )
    made: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 4.0}
    sample_latents(model, ddim(), draw(1, WIDTH), **made, options=GuidanceOptions(guidance_oscillate=1.5))
    assert told == [4.0, 1.5, 4.0, 1.5]
    with pytest.raises(InputError, match="knows scales from 1 to 4"):
        sample_latents(model, ddim(), draw(1, WIDTH), **made, options=GuidanceOptions(guidance_oscillate=0.5))
    with pytest.raises(InputError, match="guidance_rescale needs predictions without guidance"):
        sample_latents(model, ddim(), draw(1, WIDTH), **made, options=GuidanceOptions(guidance_rescale=0.5))


def test_a_number_is_the_decoders_and_names_are_checked() -> None:
    cascade = tiny_cascade()
    settings = cascade.settings(guidance_rescale=0.7, guidance_oscillate={"decoder": 1.0})
    assert settings["decoder"].guidance_rescale == 0.7 and settings["decoder"].guidance_oscillate == 1.0
    assert settings["prior"] == cascade.stages[0].defaults
    with pytest.raises(InputError, match="The stage 'prior' knows no threshold; give it to the decoder alone"):
        cascade.settings(threshold={"prior": 0.9})
    with pytest.raises(InputError, match=r"guidance_rescale names .decodr. \(did you mean"):
        cascade.settings(guidance_rescale={"decodr": 0.9})
