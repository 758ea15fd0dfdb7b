"""Frame positions against their closed forms."""

import math

import pytest
import torch
from diffusers.models.embeddings import SinusoidalPositionalEmbedding

from inflate.layers import relative_index, rotate, sinusoidal_positions
from inflate.layers.positions import alibi_table


def test_relative_index_counts_key_minus_query_and_clips() -> None:
    assert relative_index(3, 3).tolist() == [[2, 3, 4], [1, 2, 3], [0, 1, 2]]
    assert relative_index(4, 2).tolist() == [[1, 2, 2, 2], [0, 1, 2, 2], [0, 0, 1, 2], [0, 0, 0, 1]]
    assert relative_index(1, 5).tolist() == [[4]]


def test_alibi_slopes() -> None:
    """Eight heads have the slopes 1/2, 1/4, ... 1/256 of the paper."""
    table = alibi_table(8, 4)
    assert table.shape == (7, 8)
    assert table[3].tolist() == [0] * 8
    assert (-table[4]).tolist() == [2.0**-head for head in range(1, 9)]
    assert torch.equal(table[0], 3 * table[4])
    assert torch.equal(table, table.flip(0))


@pytest.mark.parametrize("dim", [2, 7, 8])
def test_sinusoidal_closed_form(dim: int) -> None:
    table = sinusoidal_positions(20, dim)
    assert table.shape == (20, dim)
    for frame in (0, 1, 19):
        for channel in range(dim):
            angle = frame / 10000 ** ((channel - channel % 2) / dim)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[frame, channel].item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.reference
def test_sinusoidal_equals_diffusers() -> None:
    """The table that AnimateDiff's motion modules use."""
    states = torch.zeros(1, 32, 16)
    torch.testing.assert_close(sinusoidal_positions(32, 16), SinusoidalPositionalEmbedding(16, 32)(states)[0])


def test_rotary_closed_form() -> None:
    """Frame m turns pair i by m * 10000 ** (-2 i / d), as a product of complex numbers does."""
    states = torch.randn(5, 6, dtype=torch.float64)
    pairs = torch.view_as_complex(states.reshape(5, 3, 2))
    angle = torch.arange(5)[:, None] * 10000.0 ** (-torch.arange(3, dtype=torch.float64) * 2 / 6)
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
    torch.testing.assert_close(rotate(states), expected, rtol=0, atol=1e-6)


def test_rotary_keeps_lengths_and_leaves_products_to_the_distance() -> None:
    query, key = torch.randn(8), torch.randn(8)
    turned_query, turned_key = rotate(query.expand(9, 8)), rotate(key.expand(9, 8))
    torch.testing.assert_close(turned_query.norm(dim=-1), query.norm().expand(9))
    assert torch.equal(turned_query[0], query)
    products = turned_query @ turned_key.T
    for distance in range(-8, 9):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-4)
    assert products[0].std() > 0.01, "other distances, other products"
