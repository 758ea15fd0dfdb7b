"""The way for inference on a CPU gives what the way with gradients gives, and steps aside where it must."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from inflate.layers import POSITIONS, MotionModule, TemporalAttention, TemporalConv
from inflate.layers.inference import quick_answer
from tests.layers.test_identity import train_a_little

LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{f"depthwise-{size}": lambda size=size: TemporalConv(12, size, depthwise=True) for size in (1, 3, 5)},
    **{
        f"attention-{position}": lambda position=position: TemporalAttention(12, 3, 4, 4, position)
        for position in POSITIONS
    },
    "motion": lambda: MotionModule(12, 2, 4),
    "motion-2": lambda: MotionModule(12, 2, 4, num_layers=2, norm_over_video=False),
}


def last_of(layer: nn.Module) -> nn.Module:
    """The projection whose answer is added to the layer's input."""
    return layer.to_out if isinstance(layer, TemporalAttention) else layer.get_submodule("proj_out")


def nothing(module: nn.Module, arguments: Any, answer: Any) -> torch.Tensor:
    """A forward hook that puts zeros in place of an answer."""
    return torch.zeros_like(answer)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which way each layer took: True for that of inference."""
    taken: list[bool] = []

    def noting(*arguments: Any) -> torch.Tensor | None:
        answer = quick_answer(*arguments)
        taken.append(answer is not None)
        return answer

    for module in ("attention", "convolution", "motion_module"):
        monkeypatch.setattr(f"inflate.layers.{module}.quick_answer", noting)
    return taken


@pytest.mark.parametrize("num_frames", [1, 2, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_the_two_ways_agree(name: str, num_frames: int, ways: list[bool]) -> None:
    layer = LAYERS[name]().double()
    train_a_little(layer)
    pictures = torch.randn(8, 12, 5, 6, dtype=torch.float64) * 3 + 1
    before = pictures.clone()
    expected = layer(pictures, num_frames)
    with torch.no_grad():
        found = layer(pictures, num_frames)
    assert ways == [False, True]
    assert not torch.allclose(found, pictures)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)
    assert torch.equal(pictures, before), "the input is left alone"
    if name.startswith("attention"):
        tokens = pictures.flatten(2).transpose(1, 2).contiguous()
        with torch.no_grad():
            answer = layer(tokens, num_frames).transpose(1, 2).unflatten(2, (5, 6))
        torch.testing.assert_close(answer, expected.detach(), rtol=0, atol=1e-12)
        assert ways == [False, True, True]


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_it_steps_aside(name: str, ways: list[bool]) -> None:
    layer = LAYERS[name]()
    pictures = torch.randn(8, 12, 5, 6)
    assert torch.equal(layer(pictures, 4), pictures)
    train_a_little(layer)
    layer(pictures, 4)
    with torch.autocast("cpu", torch.bfloat16):
        layer(pictures, 4)
    layer.to(torch.bfloat16)(pictures.bfloat16(), 4)
    layer.float()
    if "depthwise" not in name:
        handle = last_of(layer).register_forward_hook(nothing)
        assert torch.equal(layer(pictures, 4), pictures), "what hangs on a projection has its say"
        handle.remove()
    assert ways[:4] == [False, True, False, False]
    assert not any(ways[4:])
