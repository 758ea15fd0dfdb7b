import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.denoising import (
    ClipLatents,
    denoising_errors,
    fixed_noise,
    markdown_table,
    measure_denoising,
    noisy_latents,
    training_target,
)

ALPHAS_CUMPROD = torch.tensor([0.9, 0.64, 0.1], dtype=torch.float64)


def clips(count: int = 3, scale: float = 1.0, size: int = 2) -> ClipLatents:
    generator = torch.Generator().manual_seed(1)
    latents = scale * torch.randn(count, 2, 4, size, size, generator=generator, dtype=torch.float64)
    return ClipLatents(latents, torch.arange(count, dtype=torch.float64)[:, None])


def zero(sample, timestep, fps, embeddings):
    return torch.zeros_like(sample)


def test_noise_and_targets_by_hand():
    latents, noise = torch.tensor([2.0]), torch.tensor([-1.0])
    # alpha 0.8, sigma 0.6
    assert noisy_latents(latents, noise, 0.64).item() == pytest.approx(0.8 * 2 - 0.6)
    assert training_target(latents, noise, 0.64, "v_prediction").item() == pytest.approx(-0.8 - 0.6 * 2)
    assert training_target(latents, noise, 0.64, "epsilon").item() == -1
    assert training_target(latents, noise, 0.64, "sample").item() == 2
    with pytest.raises(InputError, match="did you mean 'v_prediction'"):
        training_target(latents, noise, 0.64, "v_predicton")


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_exact_denoiser_of_gaussian_data_reaches_the_least_possible_error(scale: float):
    # x ~ N(0, s²): E[x|z] = alpha s² z / (alpha² s² + sigma²), and the error of v is s² / (alpha² s² + sigma²).
    alpha_bar = 0.64
    variance = alpha_bar * scale**2 + 1 - alpha_bar

    def exact(sample, timestep, fps, embeddings):
        denoised = alpha_bar**0.5 * scale**2 / variance * sample
        return (alpha_bar**0.5 * sample - denoised) / (1 - alpha_bar) ** 0.5

    data = clips(count=40, scale=scale, size=16)
    error = denoising_errors(exact, data, 8.0, 1, ALPHAS_CUMPROD).mean().item()
    assert error == pytest.approx(scale**2 / variance, rel=0.02)
    worse = denoising_errors(zero, data, 8.0, 1, ALPHAS_CUMPROD).mean().item()
    assert worse > 1.05 * error


def test_errors_are_per_clip_and_do_not_depend_on_the_batch():
    def biased(sample, timestep, fps, embeddings):
        # The clip's number travels in its embedding.
        return embeddings[:, :, None, None, None].expand_as(sample).clone()

    data = ClipLatents(torch.zeros(3, 2, 4, 2, 2, dtype=torch.float64), clips().embeddings)
    one = denoising_errors(biased, data, 8.0, 1, ALPHAS_CUMPROD, "sample", batch_size=1)
    assert one.tolist() == pytest.approx([0.0, 1.0, 4.0])
    assert torch.equal(one, denoising_errors(biased, data, 8.0, 1, ALPHAS_CUMPROD, "sample", batch_size=2))


def test_noise_is_fixed_by_seed_and_timestep():
    assert torch.equal(fixed_noise((2, 3), 0, 50), fixed_noise((2, 3), 0, 50))
    assert not torch.equal(fixed_noise((2, 3), 0, 50), fixed_noise((2, 3), 0, 150))
    assert not torch.equal(fixed_noise((2, 3), 0, 50), fixed_noise((2, 3), 1, 50))


def test_report_says_where_the_video_model_is_better():
    seen = []

    def image(sample, timestep, fps, embeddings):
        return torch.ones_like(sample)

    def video(sample, timestep, fps, embeddings):
        seen.append((timestep, fps))
        return torch.full_like(sample, 2.0 if timestep == 2 else 0.5)

    still = ClipLatents(torch.zeros(2, 1, 3, 2, 2), torch.zeros(2, 1))
    report = measure_denoising(
        video, image, {16.0: still, 4.0: still}, ALPHAS_CUMPROD, "sample", timesteps=(0, 2), batch_size=2
    )
    assert seen == [(0, 4.0), (2, 4.0), (0, 16.0), (2, 16.0)]
    assert report.by_timestep() == {0: (1.0, 0.25), 2: (1.0, 4.0)}
    assert not report.better_at_every_timestep and not report.better_in_every_row
    assert [row.clips_better for row in report.rows] == [1.0, 0.0, 1.0, 0.0]
    assert (report.clips, report.num_frames) == (2, 3)
    table = markdown_table(report).splitlines()
    assert table[0] == "| t | image model | video model | video / image | at 4 fps | at 16 fps |"
    assert table[2] == "| 0 | 1.00000 | 0.25000 | 0.250 | 0.250 | 0.250 |"

    better = measure_denoising(video, image, {4.0: still}, ALPHAS_CUMPROD, "sample", timesteps=(0, 1))
    assert better.better_at_every_timestep and better.better_in_every_row
    assert better.as_dict()["better_at_every_timestep"] is True


def test_refusals():
    with pytest.raises(InputError, match="timestep 3 lies outside the schedule's 0 to 2"):
        denoising_errors(zero, clips(), 8.0, 3, ALPHAS_CUMPROD)
    with pytest.raises(InputError, match="no clip to measure"):
        measure_denoising(zero, zero, {}, ALPHAS_CUMPROD)
