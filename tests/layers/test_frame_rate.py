"""The embedding of frames per second."""

import math

import pytest
import torch
from torch import nn

from inflate.errors import InputError
from inflate.layers import FrameRateEmbedding
from inflate.layers.frame_rate import NUM_FREQUENCIES, SLOWEST_PERIOD, frame_rate_waves


def test_waves_closed_form() -> None:
    waves = frame_rate_waves(torch.tensor([1.0, 24.0]))
    assert waves.shape == (2, 2 * NUM_FREQUENCIES)
    for index in (0, 1, NUM_FREQUENCIES - 1):
        period = SLOWEST_PERIOD ** (index / (NUM_FREQUENCIES - 1))
        assert waves[1, index].item() == pytest.approx(math.cos(24 / period), abs=1e-5)
        assert waves[1, NUM_FREQUENCIES + index].item() == pytest.approx(math.sin(24 / period), abs=1e-5)


def test_tells_apart_all_rates_of_the_paper() -> None:
    """1 to 30 frames per second: no two nearer than half a unit in 128 numbers between -1 and 1."""
    waves = frame_rate_waves(torch.arange(1, 31))
    distance = torch.cdist(waves, waves) + 1e9 * torch.eye(30)
    assert distance.min() > 0.5


@pytest.mark.parametrize("fps_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_is_its_layers_one_after_another(dtype: torch.dtype, fps_dtype: torch.dtype) -> None:
    embedding = FrameRateEmbedding(16).to(dtype)
    nn.init.normal_(embedding.linear_2.weight)
    fps = torch.tensor([1, 8, 30])
    answer = embedding(fps.to(fps_dtype))
    assert answer.dtype == dtype
    hidden = embedding.linear_1(frame_rate_waves(fps.float()).to(dtype))
    assert torch.equal(answer, embedding.linear_2(nn.functional.silu(hidden)))
    assert not torch.allclose(answer[0], answer[1])


def test_refuses_a_number_without_a_batch() -> None:
    with pytest.raises(InputError, match=r"shape \(batch,\), got shape \(\)"):
        FrameRateEmbedding(16)(torch.tensor(8.0))
