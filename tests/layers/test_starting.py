"""Which layers may be left out is asked of the weights as they are, however they came there."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from inflate.layers import (
    Blend,
    MotionModule,
    TemporalAttention,
    TemporalBlock,
    TemporalConv,
    TemporalResBlock,
    identity_layers,
)

LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {  # and a weight that matters
    "conv": (lambda: TemporalConv(12), "weight"),
    "depthwise": (lambda: TemporalConv(12, 5, depthwise=True), "weight"),
    "attention": (lambda: TemporalAttention(12, 3, 4, 4), "to_out.weight"),
    "motion": (lambda: MotionModule(12, 2, 4), "proj_out.weight"),
    "blend": (lambda: Blend(TemporalResBlock(12, 4)), "mix"),
    "block": (lambda: TemporalBlock(12, 3, 4, 4, condition_dim=12), "modulation.weight"),
    "block-shared": (lambda: TemporalBlock(12, 3, 4, 4, condition_dim=None), "attention.to_out.weight"),
}


def behind_the_counter(weight: torch.Tensor) -> None:
    """One number of many, as `.data` changes it."""
    weight.data[(-1,) * weight.ndim] += 0.5


def through_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy()[...] += 0.25


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.add_(1e-30)


def to_nan(weight: torch.Tensor) -> None:
    weight.data.fill_(torch.nan)


CHANGES = (behind_the_counter, through_numpy, in_place, to_nan)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_changed_layer_is_not_left_out(name: str, change: Callable[[torch.Tensor], None]) -> None:
    build, key = LAYERS[name]
    layer, other = build().eval(), build().eval()
    assert identity_layers([layer, other]) == {layer, other}
    start = copy.deepcopy(layer.state_dict())
    change(layer.get_parameter(key))
    assert identity_layers([layer, other]) == {other}
    layer.load_state_dict(start)
    assert identity_layers([layer, other]) == {layer, other}
    layer.load_state_dict(start, assign=True)
    layer.to(torch.float64)
    assert identity_layers([layer, other]) == {layer, other}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_training_or_watched_is_run(name: str) -> None:
    layer = LAYERS[name][0]()
    assert not identity_layers([layer])
    layer.eval()
    assert identity_layers([layer])
    handle = next(iter(layer.children()), layer).register_forward_hook(lambda *_: None)
    assert not identity_layers([layer])
    handle.remove()
    assert identity_layers([layer])
    assert not identity_layers([layer.to("meta")])


def test_a_wrapped_projection_is_run() -> None:
    layer = TemporalAttention(12, 3, 4, 4).eval()
    layer.to_out = nn.Sequential(layer.to_out)  # type: ignore[assignment]  # as PEFT puts a wrapper there
    assert not identity_layers([layer, nn.Linear(2, 2).eval()])
