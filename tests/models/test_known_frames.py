"""Drawing unknown frames with any diffusers scheduler: known ones stay, and guidance uses the schedule it should."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from inflate.diffusion.conversions import from_x
from inflate.diffusion.guidance import Guidance
from inflate.diffusion.reconstruction import frames_constraint
from inflate.errors import InputError
from inflate.models.decoder import decoder_denoiser
from inflate.sampling.known import (
    Corrector,
    Known,
    prediction_type,
    sample_known,
    saving_memory,
    scheduler_level,
)
from inflate.sampling.noise import frame_noise
from tests.models.tiny_family import WIDTH, tiny_scheduler, tiny_video_unet

MASK = torch.tensor([True, False])
SCHEDULERS: list[Any] = [
    DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    DDPMScheduler(clip_sample=False),
    DPMSolverMultistepScheduler(prediction_type="v_prediction"),
    EulerDiscreteScheduler(),
    FlowMatchEulerDiscreteScheduler(),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gaussian(scheduler: Any, correlation: float = 0.8) -> Any:
    """The exact network of two frames of one number each, standard normal, that correlate."""

    def predict(sample: Tensor, timestep: Tensor) -> Tensor:
        level = scheduler_level(scheduler, timestep)
        a, s = level.alpha.float(), level.sigma.float()
        covariance = torch.tensor([[1, correlation], [correlation, 1]])
        read = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(2))
        x = torch.einsum("bcfhw,gf->bcghw", sample, read)
        return from_x(sample, x, level, prediction_type(scheduler))

    return predict


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_any_scheduler_keeps_what_is_known_and_guidance_brings_the_rest_to_the_truth(scheduler: Any) -> None:
    x = torch.full((2000, 1, 2, 1, 1), 1.5)
    means = []
    for weight in (0.0, 1.0):
        constraints = [frames_constraint(x, MASK, weight)]
        made = sample_known(
            gaussian(scheduler),
            scheduler,
            draw(*x.shape, seed=1),
            Known(x, MASK, constraints),
            num_inference_steps=30,
            generator=torch.Generator().manual_seed(2),
        )
        assert torch.equal(made[:, :, 0], x[:, :, 0])
        means.append(made[:, :, 1].mean().item())
    # E[x^b | x^a] = 0.8 * 1.5
    assert abs(means[1] - 1.2) < abs(means[0] - 1.2)


def test_a_corrector_and_new_noise_ask_for_a_scheduler_that_keeps_variance() -> None:
    x, noise = torch.ones(4, 1, 2, 1, 1), draw(4, 1, 2, 1, 1)
    choices: list[dict[str, Any]] = [{}, {"redraw": True}, {"corrector": Corrector(2)}]
    made = [
        sample_known(
            gaussian(SCHEDULERS[0]),
            SCHEDULERS[0],
            noise,
            Known(x, MASK),
            num_inference_steps=5,
            draw=lambda: draw(4, 1, 2, 1, 1, seed=5),
            **options,
        )
        for options in choices
    ]
    assert all(torch.equal(one[:, :, 0], x[:, :, 0]) and one.isfinite().all() for one in made)
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    with pytest.raises(InputError, match="keep their variance"):
        sample_known(
            gaussian(SCHEDULERS[3]), SCHEDULERS[3], noise, Known(x, MASK), num_inference_steps=5,
            corrector=Corrector(), draw=lambda: noise,
        )  # fmt: skip
    with pytest.raises(InputError, match=r"bool of shape \(2,\)"):
        Known(x, torch.ones(3, dtype=torch.bool))


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    model, scheduler, cpu = tiny_video_unet(), tiny_scheduler(), torch.device("cpu")
    x, mask = draw(1, 4, 4, 4, 4), torch.tensor([True, True, False, False])
    embeds = torch.nn.functional.normalize(draw(1, WIDTH, seed=3))
    predict = decoder_denoiser(model, scheduler, embeds, Guidance(2.0), 8.0, frames=4)
    noise = frame_noise(model, 1, 4, torch.Generator().manual_seed(0), cpu, 8.0)
    made = []
    for wanted in (False, True):
        with saving_memory(model, wanted):
            assert model.image_model.is_gradient_checkpointing is wanted
            known = Known(x, mask, [frames_constraint(x, mask, 2.0)])
            made.append(sample_known(predict, scheduler, noise, known, num_inference_steps=2))
    torch.testing.assert_close(made[0], made[1])
    assert not model.image_model.is_gradient_checkpointing
