import pytest
import torch
from diffusers import DDPMScheduler

from inflate.diffusion.weights import signal_to_noise, v_weight


def _schedule():
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    return scheduler, scheduler.alphas_cumprod.double()


@pytest.mark.parametrize("weighting", ["v", "min-snr", "truncated-snr"])
def test_weighted_v_loss_is_the_named_weighting_of_the_x_loss(weighting):
    # Draw any x, eps and prediction; the v-loss times v_weight must be w(SNR) times the x-loss.
    _, alphas = _schedule()
    snr = signal_to_noise(alphas)
    generator = torch.Generator().manual_seed(0)
    x, eps, v_made = torch.randn(3, 1000, dtype=torch.float64, generator=generator)
    alpha, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    noisy, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    x_made = alpha * noisy - sigma * v_made
    named = {"v": 1 + snr, "min-snr": snr.clamp(max=5.0), "truncated-snr": snr.clamp(min=1.0)}[weighting]
    torch.testing.assert_close(
        v_weight(snr, weighting, 5.0) * (v - v_made) ** 2, named * (x - x_made) ** 2, rtol=1e-6, atol=1e-9
    )


def test_signal_to_noise_is_finite_at_pure_noise_and_agrees_with_diffusers():
    from diffusers.training_utils import compute_snr

    scheduler, alphas = _schedule()
    steps = torch.arange(1000)
    torch.testing.assert_close(signal_to_noise(alphas).float(), compute_snr(scheduler, steps), rtol=1e-4, atol=0)
    assert signal_to_noise(torch.zeros(1)) == 0


def test_unknown_weighting_is_named():
    with pytest.raises(ValueError, match="'minsnr' is unknown"):
        v_weight(torch.ones(1), "minsnr", 5.0)
