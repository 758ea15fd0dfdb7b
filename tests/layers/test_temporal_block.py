"""Latte's block and the two ends of spacetime patches, against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inflate.errors import InputError
from inflate.layers import SpacetimePatchIn, SpacetimePatchOut, TemporalBlock, sinusoidal_positions

VIDEOS, FRAMES, TOKENS, HEADS, WIDTH = 2, 5, 3, 2, 8


def block(shared: bool, seed: int | None = None) -> TemporalBlock:
    torch.manual_seed(0)
    layer = TemporalBlock(WIDTH, HEADS, WIDTH // HEADS, FRAMES, condition_dim=None if shared else WIDTH)
    if seed is not None:
        move(layer, seed)
    return layer


@torch.no_grad()
def move(layer: torch.nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def condition_for(shared: bool) -> Tensor:
    return torch.randn(VIDEOS * FRAMES, (6 if shared else 1) * WIDTH, generator=torch.Generator().manual_seed(2))


def tokens() -> Tensor:
    return torch.randn(VIDEOS * FRAMES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3))


def by_formula(layer: TemporalBlock, states: Tensor, condition: Tensor) -> Tensor:
    """Token by token, video by video, written without the layer's own reshaping."""
    weights = layer.double().state_dict()
    if layer.condition_dim is None:
        six = weights["modulation_table"] + condition.reshape(-1, 6, WIDTH)
    else:
        six = F.linear(F.silu(condition), weights["modulation.weight"], weights["modulation.bias"])
        six = six.reshape(-1, 6, WIDTH)
    positions = sinusoidal_positions(FRAMES, WIDTH).double()
    result = states.clone()
    for video in range(VIDEOS):
        rows = slice(video * FRAMES, (video + 1) * FRAMES)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = six[rows].unbind(1)
        for token in range(TOKENS):
            frames = states[rows, token]
            normed = F.layer_norm(frames, (WIDTH,), weights["attention.norm.weight"], weights["attention.norm.bias"])
            normed = normed * (1 + scale) + shift + positions
            q, k, v = (normed @ weights[f"attention.to_{name}.weight"].T for name in "qkv")
            heads = []
            for head in range(HEADS):
                part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                shares = (q[:, part] @ k[:, part].T / math.sqrt(WIDTH // HEADS)).softmax(-1)
                heads.append(shares @ v[:, part])
            attended = torch.cat(heads, -1) @ weights["attention.to_out.weight"].T + weights["attention.to_out.bias"]
            frames = frames + gate * attended
            normed = F.layer_norm(frames, (WIDTH,), weights["norm.weight"], weights["norm.bias"])
            inner = F.linear(normed * (1 + mlp_scale) + mlp_shift, weights["linear_1.weight"], weights["linear_1.bias"])
            outer = F.linear(F.gelu(inner, approximate="tanh"), weights["linear_2.weight"], weights["linear_2.bias"])
            result[rows, token] = frames + mlp_gate * outer
    return result


@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_the_block_is_its_formula(shared: bool) -> None:
    layer = block(shared, seed=1).double()
    states, condition = tokens().double(), condition_for(shared).double()
    found = layer(states, FRAMES, condition)
    assert (found - states).abs().max() > 0.1
    torch.testing.assert_close(found, by_formula(layer, states, condition), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_a_new_block_is_the_identity_down_to_the_sign_of_zero(shared: bool, dtype: torch.dtype) -> None:
    layer = block(shared).to(dtype)
    states = tokens().to(dtype)
    states[0, 0, :3] = -0.0
    condition = condition_for(shared).to(dtype)
    assert torch.equal(layer(states, FRAMES, condition), states)
    assert torch.equal(layer(states, FRAMES, condition).signbit(), states.signbit())
    move(layer)
    assert not torch.equal(layer(states, FRAMES, condition), states)


@pytest.mark.parametrize("shared", [False, True])
def test_training_moves_every_weight_of_the_block(shared: bool) -> None:
    layer = block(shared)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        layer(tokens(), FRAMES, condition_for(shared)).square().mean().backward()
        optimizer.step()
    stayed = [name for name, parameter in layer.named_parameters() if torch.equal(parameter, before[name])]
    assert not stayed


def test_a_condition_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"a condition must be \(batch \* frames, 8\), got shape \(10, 48\)"):
        block(shared=False)(tokens(), FRAMES, condition_for(shared=True))
    with pytest.raises(InputError, match="a batch of 10 pictures is not whole videos of 3 frames"):
        block(shared=False)(tokens(), 3, condition_for(shared=False))


@pytest.mark.parametrize("patch_frames", [2, 3])
@torch.no_grad()
def test_patches_in_time_are_one_convolution_with_an_inflated_kernel(patch_frames: int) -> None:
    """The image model's kernel over the mean frame plus the change is a 3D kernel over all frames."""
    torch.manual_seed(0)
    kernel = torch.randn(WIDTH, 4, 2, 2, dtype=torch.float64)
    groups = torch.randn(6, 4, patch_frames, 8, 6, dtype=torch.float64)
    layer = SpacetimePatchIn(WIDTH, 4, 2, patch_frames, positions=False).double()
    image_tokens = F.conv2d(groups.mean(2), kernel, stride=2).flatten(2).transpose(1, 2)
    assert torch.equal(layer(image_tokens, 3, groups), image_tokens)
    move(layer)
    change = layer.get_parameter("change.weight")
    inflated = kernel[:, :, None].repeat(1, 1, patch_frames, 1, 1) / patch_frames + change
    expected = F.conv3d(groups, inflated, stride=(patch_frames, 2, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer(image_tokens, 3, groups), expected)


@torch.no_grad()
def test_places_in_time_start_at_nothing_and_are_the_same_in_every_video() -> None:
    layer = SpacetimePatchIn(WIDTH, 4, 2, patch_frames=1)
    states = tokens()
    assert torch.equal(layer(states, FRAMES, None), states)
    move(layer)
    change = (layer(states, FRAMES, None) - states).unflatten(0, (VIDEOS, FRAMES))
    torch.testing.assert_close(change[0], change[1])
    torch.testing.assert_close(change[0, :, 0], change[0, :, 1])
    gaps = torch.cdist(change[0, :, 0], change[0, :, 0]) + torch.eye(FRAMES)
    assert gaps.min() > 1e-2, "no two frames have the same place"


@torch.no_grad()
def test_the_last_projection_answers_every_frame_of_a_token() -> None:
    layer = SpacetimePatchOut(WIDTH, 6, patch_frames=2)
    states = tokens()[:4]
    found = layer(states)
    assert found.shape == (8, TOKENS, 6) and not found.any()
    move(layer)
    found = layer(states)
    full = F.linear(states, layer.change.weight, layer.change.bias)
    torch.testing.assert_close(found[0::2], full[..., :6])
    torch.testing.assert_close(found[1::2], full[..., 6:])
