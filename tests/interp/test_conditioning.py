"""The start is D^t, bit for bit; afterwards known frames and mask count."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.inflater import inflate
from interp.conditioning import EXTRA_KEYS, check_interpolates, join_condition, start_from_decoder
from interp.masks import MIXTURE, check_mixture, draw_mask
from tests.interp.networks import seeded, trained, untrained
from tests.models.tiny_family import WIDTH, tiny_unet, tiny_video_unet


def inputs(num_frames: int = 4) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    sample, known = (torch.randn(2, 4, num_frames, 4, 4, generator=seeded(seed)) for seed in (0, 1))
    embeds = torch.randn(2, WIDTH, generator=seeded(2))
    told = torch.arange(num_frames) % 2 == 0
    return sample, known, told, {"class_labels": embeds, "encoder_hidden_states": embeds[:, None], "fps": 8}


@torch.no_grad()
def test_the_start_answers_as_the_decoder_bit_for_bit() -> None:
    sample, known, told, arguments = inputs()
    decoder, model = tiny_video_unet(), untrained()
    before = decoder(sample, 500, **arguments).sample
    assert torch.equal(before, model(join_condition(sample, known, told), 500, **arguments).sample)
    with_other = model(join_condition(sample, 7 * known, ~told), 500, **arguments).sample
    assert torch.equal(before, with_other)


@torch.no_grad()
def test_known_frames_and_mask_count_once_their_weights_do() -> None:
    sample, known, told, arguments = inputs()
    model = trained()
    base = model(join_condition(sample, known, told), 500, **arguments).sample
    assert not torch.allclose(base, model(join_condition(sample, known + 1, told), 500, **arguments).sample)
    assert not torch.allclose(base, model(join_condition(sample, known, ~told), 500, **arguments).sample)


def test_only_the_new_weights_may_be_missing() -> None:
    decoder = tiny_video_unet()
    weights = decoder.temporal_state_dict()
    model = untrained()
    assert set(model.temporal_state_dict()) - set(weights) == set(EXTRA_KEYS)
    assert not any(model.temporal_state_dict()[name].any() for name in EXTRA_KEYS)
    assert all(torch.equal(model.temporal_state_dict()[name], value) for name, value in weights.items())
    for name in (next(iter(weights)), list(weights)[-1]):
        fewer = {key: value for key, value in weights.items() if key != name}
        with pytest.raises(InputError, match="1 missing"):
            start_from_decoder(tiny_unet(), decoder.scheme, 4, fewer)
    with pytest.raises(InputError, match="1 unknown"):
        start_from_decoder(tiny_unet(), decoder.scheme, 4, weights | {"stranger": torch.zeros(1)})


def test_an_interpolation_model_goes_on_with_all_its_weights() -> None:
    model = trained()
    again = start_from_decoder(tiny_unet(), model.scheme, 4, model.temporal_state_dict())
    own = again.temporal_state_dict()
    assert all(torch.equal(own[name], value) for name, value in model.temporal_state_dict().items())
    fewer = {key: value for key, value in own.items() if key not in EXTRA_KEYS}
    with pytest.raises(InputError, match="1 missing"):
        start_from_decoder(tiny_unet(), model.scheme, 4, fewer)


def test_the_input_is_sample_known_frames_and_mask() -> None:
    sample, known, told, _ = inputs()
    known[:, :, ~told] = torch.nan
    joined = join_condition(sample, known, told)
    assert joined.shape == (2, 9, 4, 4, 4)
    assert torch.equal(joined[:, :4], sample)
    assert torch.equal(joined[:, 4:8, told], known[:, :, told]) and not joined[:, 4:8, ~told].any()
    assert (joined[:, 8, ~told] == 1).all() and not joined[:, 8, told].any()
    each = join_condition(sample, known.nan_to_num(), torch.stack([told, ~told]))
    assert torch.equal(each[:1], joined[:1]) and torch.equal(each[1, 8], 1 - joined[1, 8])


def test_a_decoder_is_no_interpolation_model() -> None:
    check_interpolates(untrained())
    with pytest.raises(InputError, match="takes 0 channels beside its 4; a frame interpolation model takes 5"):
        check_interpolates(inflate(tiny_unet(), num_frames=4))


# Masks.


@pytest.mark.parametrize("num_frames", [2, 3, 4, 16])
def test_masks_always_tell_something_and_leave_something(num_frames: int) -> None:
    for seed in range(300):
        mask = draw_mask(np.random.default_rng(seed), num_frames)
        assert mask.shape == (num_frames,) and mask.any() and not mask.all()


def test_the_mixture_holds_every_use() -> None:
    masks = [tuple(np.flatnonzero(draw_mask(np.random.default_rng(seed), 16)).tolist()) for seed in range(2000)]
    found = set(masks)
    assert masks.count((0, 5, 10, 15)) > 400
    assert (0, 2, 4, 6, 8, 10, 12, 14, 15) in found and (0, 8, 15) in found
    assert tuple(range(12)) in found and tuple(range(8, 16)) in found
    assert (0,) in found and (7,) in found and (0, 15) in found


def test_shares_decide_the_kinds() -> None:
    rng = np.random.default_rng(0)
    assert all(draw_mask(rng, 16, {"ends": 1.0}).nonzero()[0].tolist() == [0, 15] for _ in range(5))
    assert all(draw_mask(rng, 16, {"skip": 0, "one": 2}).sum() == 1 for _ in range(20))


@pytest.mark.parametrize(
    ("mixture", "sentence"),
    [
        ({**MIXTURE, "frist": 1}, "did you mean 'first'"),
        ({"skip": -1}, "must be a number of 0 or more"),
        ({"skip": 0, "one": 0}, "a share of 0"),
    ],
)
def test_bad_mixtures_are_one_sentence(mixture: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_mixture(mixture)
