import itertools

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from inflate.diffusion.conversions import from_x
from inflate.diffusion.schedules import from_log_snr
from inflate.diffusion.weights import WEIGHTINGS, loss_weight, signal_to_noise
from inflate.errors import InputError


def _schedule():
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    return scheduler, scheduler.alphas_cumprod.double()


@pytest.mark.parametrize("weighting", ["v", "min-snr", "truncated-snr"])
def test_weighted_v_loss_is_the_named_weighting_of_the_x_loss(weighting):
    # Draw any x, eps and prediction; the v-loss times the factor must be w(SNR) times the x-loss.
    _, alphas = _schedule()
    snr = signal_to_noise(alphas)
    generator = torch.Generator().manual_seed(0)
    x, eps, v_made = torch.randn(3, 1000, dtype=torch.float64, generator=generator)
    alpha, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    noisy, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    x_made = alpha * noisy - sigma * v_made
    named = {"v": 1 + snr, "min-snr": snr.clamp(max=5.0), "truncated-snr": snr.clamp(min=1.0)}[weighting]
    torch.testing.assert_close(
        loss_weight(snr, weighting, "v_prediction", 5.0) * (v - v_made) ** 2,
        named * (x - x_made) ** 2,
        rtol=1e-6,
        atol=1e-9,
    )


def test_signal_to_noise_is_finite_at_pure_noise_and_agrees_with_diffusers():
    from diffusers.training_utils import compute_snr

    scheduler, alphas = _schedule()
    steps = torch.arange(1000)
    torch.testing.assert_close(signal_to_noise(alphas).float(), compute_snr(scheduler, steps), rtol=1e-4, atol=0)
    assert signal_to_noise(torch.zeros(1)) == 0


def test_unknown_weighting_is_named():
    with pytest.raises(ValueError, match="'minsnr' is unknown"):
        loss_weight(torch.ones(1), "minsnr", "v_prediction", 5.0)


KINDS = ("sample", "epsilon", "v_prediction")
ON_X = {
    "v": lambda snr: 1 + snr,
    "snr": lambda snr: snr,
    "epsilon": lambda snr: snr,
    "x": torch.ones_like,
    "truncated-snr": lambda snr: snr.clamp(min=1),
    "min-snr": lambda snr: snr.clamp(max=5),
}


@pytest.mark.parametrize(("weighting", "kind"), list(itertools.product(WEIGHTINGS, KINDS)))
@given(log_snr=st.floats(-15, 15), x=st.floats(-3, 3), away=st.floats(0.1, 3))
def test_one_weighting_is_one_loss_whatever_is_predicted(weighting, kind, log_snr, x, away):
    snr = torch.tensor(log_snr, dtype=torch.float64).exp()
    level = from_log_snr(snr.log())
    z, clean = torch.tensor(0.7, dtype=torch.float64), torch.tensor(x, dtype=torch.float64)
    error = (from_x(z, clean, level, kind) - from_x(z, clean + away, level, kind)) ** 2
    expected = ON_X[weighting](snr) * away**2
    torch.testing.assert_close(loss_weight(snr, weighting, kind) * error, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("weighting", "kind"), list(itertools.product(WEIGHTINGS, KINDS)))
def test_weights_are_finite_at_both_ends(weighting, kind):
    snr = torch.tensor([0.0, 1e-300, 1.0, 1e300, torch.inf], dtype=torch.float64)
    made = loss_weight(snr, weighting, kind)
    assert torch.isfinite(made).all() and (made >= 0).all() and made[2] > 0
    if kind == "v_prediction":
        torch.testing.assert_close(made[[0, -1]], made[[1, 3]])  # The limits are reached.


def test_ends_of_known_weights():
    ends = torch.tensor([0.0, torch.inf])
    assert loss_weight(ends, "v", "v_prediction").tolist() == [1, 1]
    assert loss_weight(ends, "snr", "v_prediction").tolist() == [0, 1]
    assert loss_weight(ends, "truncated-snr", "v_prediction").tolist() == [1, 1]
    assert loss_weight(ends, "x", "v_prediction").tolist() == [1, 0]
    assert loss_weight(ends, "min-snr", "epsilon").tolist() == [1, 0]
    assert loss_weight(ends, "min-snr", "sample").tolist() == [0, 5]
    assert loss_weight(ends, "x", "epsilon").tolist() == [0, 0], "an eps-loss at SNR 0 says nothing of x"


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"'minsnr' is unknown \(did you mean 'min-snr'\?\)"):
        loss_weight(torch.ones(1), "minsnr", "epsilon")
    with pytest.raises(InputError, match="'flow_prediction' has no weight"):
        loss_weight(torch.ones(1), "v", "flow_prediction")
