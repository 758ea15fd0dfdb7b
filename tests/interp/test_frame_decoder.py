"""New frames from latents beside their neighbours, and from the network that looks at all of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.models.decoder import decode_latents, encode_pixels
from interp.detail import decode_beside
from interp.frame_decoder import (
    FAR,
    NEAR,
    decode_trusted,
    new_frame_decoder,
    patch_of,
    refine,
    refine_both_ways,
    trust_at,
)
from interp.neighbours import Neighbours, neighbours_of
from tests.interp.networks import seeded
from tests.models.tiny_family import tiny_vae

SIZE = 16


def pictures(seed: int, count: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed)) * 2 - 1


def around_of(size: int = SIZE) -> Neighbours:
    """Two frames between known ones, of which none is like another."""
    video = pictures(4, 12, size).transpose(0, 1)
    return neighbours_of(video, [0, 2, 7, 11], [3, 5])


def with_weights(network: Any) -> Any:
    """Its last layer says something."""
    network.conv_out.weight.data.normal_(std=0.3, generator=seeded(9))
    return network


@pytest.mark.reference
@torch.no_grad()
def test_where_nothing_moves_the_residual_decode_is_the_neighbour_itself() -> None:
    vae, still = tiny_vae(), pictures(4, 1)
    around = neighbours_of(still.transpose(0, 1).expand(-1, 6, -1, -1), [0, 5], [1, 3])
    made, plain = decode_beside(vae, encode_pixels(vae, still.expand(2, -1, -1, -1)), around)
    torch.testing.assert_close(made, still.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    assert not torch.allclose(plain, still, atol=1e-2)


@pytest.mark.reference
@torch.no_grad()
def test_the_residual_decode_is_blend_and_what_the_latents_say_beyond_it() -> None:
    vae, around = tiny_vae(), around_of()
    latents = torch.randn(2, 4, 4, 4, generator=seeded(5))
    made, plain = decode_beside(vae, latents, around)
    for row, time in enumerate((0.2, 0.6)):
        blend = (1 - time) * around.from_previous[row] + time * around.from_following[row]
        seen = decode_latents(vae, encode_pixels(vae, blend[None]))[0]
        torch.testing.assert_close(made[row], blend + decode_latents(vae, latents)[row] - seen, atol=1e-5, rtol=0)
    assert torch.equal(plain, decode_latents(vae, latents))


@torch.no_grad()
def test_only_trusted_frames_are_decoded() -> None:
    vae, around = tiny_vae(), around_of()
    latents = torch.randn(2, 4, 4, 4, generator=seeded(5))
    residual, plain = decode_trusted(vae, latents, around, torch.tensor([0.0, 0.4]))
    whole = decode_beside(vae, latents, around)
    assert torch.equal(residual[0], around.blend[0]) and torch.equal(plain[0], around.blend[0])
    torch.testing.assert_close(residual[1], whole[0][1], atol=1e-5, rtol=0)
    torch.testing.assert_close(plain[1], whole[1][1], atol=1e-5, rtol=0)


def test_trust_rises_with_the_distance_in_time() -> None:
    trust = trust_at(torch.tensor([0.0, NEAR, (NEAR + FAR) / 2, FAR, 9.0]))
    torch.testing.assert_close(trust, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_new_frame_decoder_makes_the_blend_and_where_latents_are_trusted_half_of_their_decode() -> None:
    network, around = new_frame_decoder((8, 8), norm_num_groups=4), around_of()
    residual = pictures(6)
    made = refine(network, around, torch.tensor([0.0, 1.0]), residual, pictures(7))
    torch.testing.assert_close(made[0], around.blend[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(made[1], (around.blend[1] + residual[1]) / 2, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_trained_frame_decoder_sees_all_that_it_is_told() -> None:
    network, around = with_weights(new_frame_decoder((8, 8), norm_num_groups=4)), around_of()
    trust, residual, plain = torch.tensor([0.5, 0.5]), pictures(6), pictures(7)
    base = refine(network, around, trust, residual, plain)
    changed = [
        refine(network, around, trust, residual, plain.square()),
        refine(network, around, trust + 0.2, residual, plain),
    ]
    changed.append(refine(network, around, trust, residual.square(), plain))
    for name in Neighbours.__dataclass_fields__:
        told = replace(around, **{name: getattr(around, name) * 0.5 + 0.1})
        changed.append(refine(network, told, trust, residual, plain))
    assert not any(torch.allclose(made, base, atol=1e-5) for made in changed)


@torch.no_grad()
def test_a_film_and_the_film_backwards_have_the_same_new_frames() -> None:
    network, video = with_weights(new_frame_decoder((8, 8), norm_num_groups=4)), pictures(4, 12).transpose(0, 1)
    around = neighbours_of(video, [0, 2, 7, 11], [3, 5])
    turned = neighbours_of(video.flip(1), [0, 4, 9, 11], [8, 6])
    told = (torch.tensor([0.0, 0.5]), pictures(6), pictures(7))
    made, again = refine_both_ways(network, around, *told), refine_both_ways(network, turned, *told)
    torch.testing.assert_close(made, again, atol=1e-4, rtol=0)
    assert not torch.allclose(made, refine(network, around, *told), atol=1e-3)


@torch.no_grad()
def test_decodes_that_are_not_trusted_are_not_looked_at() -> None:
    network, around, trust = with_weights(new_frame_decoder((8, 8), norm_num_groups=4)), around_of(), torch.zeros(2)
    made = [refine(network, around, trust, pictures(seed), pictures(seed + 1)) for seed in (6, 8)]
    assert torch.equal(*made)


def test_the_family_frame_decoder_is_small() -> None:
    assert sum(parameter.numel() for parameter in new_frame_decoder().parameters()) <= 800_000


def test_sizes_and_networks_that_do_not_fit_are_refused() -> None:
    network, around = new_frame_decoder((8, 8), norm_num_groups=4), around_of(18)
    with pytest.raises(InputError, match="multiples of 4 px; these are 18 x 18"):
        refine(network, around, torch.zeros(2), pictures(6, size=18), pictures(7, size=18))
    network.register_to_config(in_channels=12)
    with pytest.raises(InputError, match="this one has 12 and 36"):
        patch_of(network.config)
