from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from inflate.errors import InputError
from superres.conditioning import augment, enlarge, layout_of, level_of, predict, shrink
from superres.stable_diffusion_x4 import StableDiffusionX4Stage
from tests.superres.networks import karlo_unet, seeded, solver, tiny_unet, tiny_video_unet


def pictures(count: int = 2, side: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(0)) * 2 - 1


@pytest.mark.reference
def test_enlarging_and_shrinking_are_those_of_torch() -> None:
    given = pictures()
    bicubic = functional.interpolate(given, (32, 32), mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(enlarge(given, 4), bicubic)
    assert enlarge(given[..., :6], 2).shape == (2, 3, 16, 12)
    torch.testing.assert_close(shrink(given, 2), functional.avg_pool2d(given, 2))
    smaller = functional.interpolate(given, (4, 4), mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(shrink(given, 2, "bicubic"), smaller.clamp(-1, 1))


def test_what_cannot_be_shrunk_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'area'"):
        shrink(pictures(), 2, "aera")
    with pytest.raises(InputError, match="8 x 8 px cannot be shrunk 3 times"):
        shrink(pictures(), 3)


def test_noise_keeps_the_variance_and_level_zero_keeps_the_picture() -> None:
    alphas = solver().alphas_cumprod
    given, noise = torch.randn(3, 3, 64, 64, generator=seeded(1)), torch.randn(3, 3, 64, 64, generator=seeded(2))
    made = augment(given, noise, torch.tensor([0, 300, 1000]), alphas)
    assert torch.equal(made[0], given[0])
    by_hand = alphas[299].sqrt() * given[1] + (1 - alphas[299]).sqrt() * noise[1]
    torch.testing.assert_close(made[1], by_hand)
    assert made[1].std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(made[2], noise[2], atol=0.01, rtol=0)


def test_layouts_are_read_off_the_config() -> None:
    karlo = layout_of(karlo_unet())
    assert (karlo.patch, karlo.multiple, karlo.levels) == (1, 2, None)
    ours = layout_of(tiny_unet(4))
    assert (ours.patch, ours.multiple, ours.levels) == (4, 8, "timestep")
    assert layout_of(tiny_video_unet(2)).patch == 2
    table = layout_of(tiny_unet(1, class_embed_type=None, num_class_embeds=350))
    assert (table.levels, table.num_levels) == ("table", 350)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (6, 6), (7, 4), (12, 6), (9, 3)])
def test_channels_that_do_not_fit_are_one_sentence(inputs: int, outputs: int) -> None:
    network = tiny_unet(1, in_channels=inputs, out_channels=outputs)
    with pytest.raises(InputError, match=rf"needs 6 p\^2 input .* this one has {inputs} and {outputs}\."):
        layout_of(network)


def test_other_class_embeddings_are_refused() -> None:
    config = SimpleNamespace(in_channels=6, out_channels=3, block_out_channels=(8,), class_embed_type="identity")
    with pytest.raises(InputError, match="class_embed_type 'identity'"):
        layout_of(SimpleNamespace(config=config))


def test_levels() -> None:
    told = layout_of(tiny_unet())
    assert [level_of(share, told, 1000) for share in (0.0, 0.25, 1.0)] == [0, 250, 1000]
    # The nearest level, not the one below: 0.3 * 349 is 104.7.
    assert [level_of(share, told, 349) for share in (0.1, 0.3, 0.999)] == [35, 105, 349]
    others: Any = SimpleNamespace(config=SimpleNamespace(max_noise_level=350))
    network = SimpleNamespace(config=SimpleNamespace(num_class_embeds=1000))
    assert [StableDiffusionX4Stage._level(others, network, share) for share in (0.0, 0.02, 0.0206, 0.3497)] == [
        0,
        20,
        21,
        350,
    ]
    table = layout_of(tiny_unet(1, class_embed_type=None, num_class_embeds=350))
    assert level_of(1.0, table, 1000) == 349
    blind = layout_of(karlo_unet())
    assert level_of(0.0, blind, 1000) == 0
    with pytest.raises(InputError, match=r"noise_level is 0\.2, but this super-resolution network has no input for it"):
        level_of(0.2, blind, 1000)


@torch.no_grad()
def test_the_noisy_picture_comes_first_and_pixels_are_folded_as_torch_does() -> None:
    network = tiny_unet(2)
    sample, condition = (torch.randn(1, 3, 2, 16, 16, generator=seeded(seed)) for seed in (3, 4))
    made = predict(network, sample, condition, torch.tensor(500), torch.tensor([200]))
    assert made.shape == sample.shape
    for frame in range(2):
        inputs = torch.cat([functional.pixel_unshuffle(video[:, :, frame], 2) for video in (sample, condition)], dim=1)
        true = functional.pixel_shuffle(network(inputs, 500, class_labels=torch.tensor([200.0])).sample, 2)
        torch.testing.assert_close(made[:, :, frame], true, atol=1e-5, rtol=0)


@torch.no_grad()
def test_karlos_layout_is_a_plain_concatenation() -> None:
    network = karlo_unet()
    sample, condition = (torch.randn(1, 3, 1, 16, 16, generator=seeded(seed)) for seed in (3, 4))
    made = predict(network, sample, condition, torch.tensor(500))
    true = network(torch.cat([sample[:, :, 0], condition[:, :, 0]], dim=1), 500).sample
    assert torch.equal(made[:, :, 0], true)


@torch.no_grad()
def test_timesteps_and_levels_belong_to_their_video() -> None:
    sample, condition = (torch.randn(2, 3, 3, 16, 16, generator=seeded(seed)) for seed in (3, 4))
    steps, levels = torch.tensor([10, 900]), torch.tensor([0, 700])
    for network in (tiny_unet(2), tiny_video_unet(2)):
        both = predict(network, sample, condition, steps, levels)
        for index in range(2):
            one = slice(index, index + 1)
            alone = predict(network, sample[one], condition[one], steps[one], levels[one])
            torch.testing.assert_close(both[one], alone, atol=1e-5, rtol=0)
        other = predict(network, sample, condition, steps, torch.tensor([0, 0]))
        assert torch.allclose(both[0], other[0], atol=1e-5) and not torch.allclose(both[1], other[1], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("make", [tiny_unet, tiny_video_unet])
def test_half_precision_networks_take_levels(make: Any) -> None:
    sample, condition = (torch.randn(1, 3, 2, 16, 16, generator=seeded(seed)) for seed in (3, 4))
    arguments = (sample, condition, torch.tensor(500), torch.tensor([200]))
    network = make(2)
    true = predict(network, *arguments)
    made = predict(network.to(torch.bfloat16), *arguments)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, true, atol=0.1, rtol=0)
    image_model = getattr(network, "image_model", network)
    assert not image_model.class_embedding._forward_pre_hooks


@torch.no_grad()
def test_a_table_of_levels_is_looked_up() -> None:
    network = tiny_unet(1, class_embed_type=None, num_class_embeds=350)
    sample, condition = (torch.randn(1, 3, 1, 8, 8, generator=seeded(seed)) for seed in (3, 4))
    made = predict(network, sample, condition, torch.tensor(500), torch.tensor([349]))
    inputs = torch.cat([sample[:, :, 0], condition[:, :, 0]], dim=1)
    assert torch.equal(made[:, :, 0], network(inputs, 500, class_labels=torch.tensor([349])).sample)
