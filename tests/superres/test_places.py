"""Noise of tiles: one field, wherever it is cut."""

import torch

from inflate.stages import stage_generator
from superres.places import Place
from tests.superres.networks import seeded


def generators(name: str) -> list[torch.Generator]:
    return [stage_generator(0, f"{frame}{name}") for frame in range(2)]


def part(rows: slice, columns: slice) -> Place:
    return Place(rows, columns, (rows, columns), whole=False)


def noise(top: int, left: int, height: int, width: int) -> torch.Tensor:
    place = part(slice(top, top + height), slice(left, left + width))
    return place.noise((3, height, width), generators, (top, left))


def test_cuts_of_the_field_agree_where_they_overlap() -> None:
    whole = noise(0, 0, 200, 150)
    assert whole.shape == (2, 3, 200, 150)
    for top, left, height, width in ((0, 0, 64, 64), (63, 1, 70, 149), (130, 64, 70, 10)):
        assert torch.equal(noise(top, left, height, width), whole[..., top : top + height, left : left + width])


def test_the_field_is_noise() -> None:
    field = noise(0, 0, 256, 256)
    assert abs(field.mean()) < 0.01 and abs(field.std() - 1) < 0.01
    blocks = field.unfold(2, 64, 64).unfold(3, 64, 64).flatten(2, 3).transpose(1, 2).flatten(0, 1).flatten(1)
    assert abs(torch.corrcoef(blocks) - torch.eye(len(blocks))).max() < 0.05


def test_a_whole_picture_has_one_draw() -> None:
    place = Place.everything(5, 7)
    drawn = place.noise((3, 20, 28), lambda name: [seeded(3)], (0, 0))
    assert torch.equal(drawn, torch.randn(3, 20, 28, generator=seeded(3))[None])
