import torch

from emoji_family.training.autoencoder_loss import autoencoder_loss, edge_maps, moment_penalty


def test_moment_penalty_is_the_kl_to_a_unit_gaussian():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 3, 16, 16, generator=generator)
    values = latents.transpose(0, 1).flatten(1)
    normalised = (values - values.mean(1, keepdim=True)) / values.std(1, unbiased=False, keepdim=True)
    exact = normalised.unflatten(1, (64, 16, 16)).transpose(0, 1)
    assert float(moment_penalty(exact)) < 1e-6
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(0.5, 2.0), torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(moment_penalty(2 * exact + 0.5), kl, rtol=1e-5, atol=1e-6)


def test_edges_of_a_ramp_are_its_slope():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    across, down = edge_maps(ramp)
    assert torch.equal(across, torch.ones(1, 1, 4, 4)) and torch.equal(down, torch.zeros(1, 1, 3, 5))


def test_loss_sees_a_constant_shift_but_no_edges_in_it():
    pixels = torch.zeros(2, 3, 8, 8)
    loss = autoencoder_loss(pixels, pixels + 0.25, torch.randn(2, 4, 1, 1), edge_weight=0.5, moment_weight=0.0)
    assert float(loss.reconstruction) == 0.25 and float(loss.edges) == 0.0 and float(loss.total) == 0.25
