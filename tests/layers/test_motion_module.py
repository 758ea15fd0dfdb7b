"""The motion module against diffusers' own, and the blend of Video LDM."""

import pytest
import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from inflate.errors import InputError
from inflate.layers import Blend, MotionModule, TemporalResBlock

FRAMES = 5


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(module: MotionModule, num_layers: int = 1) -> AnimateDiffTransformer3D:
    """diffusers' module with the same weights."""
    theirs = AnimateDiffTransformer3D(
        num_attention_heads=4,
        attention_head_dim=4,
        in_channels=16,
        norm_num_groups=8,
        num_layers=num_layers,
        activation_fn="geglu",
        attention_bias=False,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=8,
    )
    own = dict(module.state_dict())
    tensors = {name: own.pop(name.replace("pos_embed.pe", "attn1.pe")) for name in theirs.state_dict()}
    assert set(own) == {f"transformer_blocks.{index}.attn2.pe" for index in range(num_layers)}
    theirs.load_state_dict(tensors)
    return theirs


@pytest.mark.parametrize("num_layers", [1, 2])
@torch.no_grad()
def test_the_motion_module_is_that_of_diffusers(num_layers: int) -> None:
    torch.manual_seed(0)
    module = MotionModule(16, num_heads=4, norm_num_groups=8, max_frames=8, num_layers=num_layers)
    # proj_out starts at zero, which would hide everything else
    for parameter in module.parameters():
        parameter.copy_(noise(*parameter.shape, seed=parameter.numel()) * 0.3)
    hidden_states = noise(2 * FRAMES, 16, 3, 4)
    expected = reference(module, num_layers)(hidden_states, num_frames=FRAMES)
    torch.testing.assert_close(module(hidden_states, FRAMES), expected, rtol=1e-5, atol=1e-5)
    assert (expected - hidden_states).abs().max() > 0.1
    module.norm_over_video = False
    each = module(hidden_states, FRAMES)
    assert not torch.allclose(each, expected, atol=1e-3), "statistics per frame are others"


@torch.no_grad()
def test_a_new_motion_module_is_the_identity_and_knows_how_long_a_video_it_can_take() -> None:
    module = MotionModule(16, 4, 8, max_frames=4)
    hidden_states = noise(8, 16, 3, 4)
    hidden_states[0, 0, 0, 0] = -0.0
    assert torch.equal(module(hidden_states, 4), hidden_states)
    assert torch.equal(module(hidden_states, 4).signbit(), hidden_states.signbit())
    with pytest.raises(InputError, match="know 4 positions and were asked for 8 frames; make at most 4 at once"):
        module(hidden_states, 8)
    with pytest.raises(InputError, match="16 channels cannot have num_heads=3"):
        MotionModule(16, num_heads=3, norm_num_groups=8)


def test_a_blend_starts_at_its_input_and_comes_back_from_beyond_its_ends() -> None:
    torch.manual_seed(0)
    layer = TemporalResBlock(8, norm_num_groups=4)
    blend = Blend(layer)
    hidden_states = noise(2 * FRAMES, 8, 3, 4)
    inner = layer(hidden_states, FRAMES)
    assert not torch.allclose(inner, hidden_states, atol=1e-2)
    assert torch.equal(blend(hidden_states, FRAMES), hidden_states)
    for mix, expected in (
        (1.0, inner),
        (0.25, 0.75 * hidden_states + 0.25 * inner),
        (-3.0, hidden_states),
        (7.0, inner),
    ):
        torch.nn.init.constant_(blend.mix, mix)
        torch.testing.assert_close(blend(hidden_states, FRAMES), expected)
        blend.zero_grad()
        blend(hidden_states, FRAMES).square().mean().backward()
        assert blend.mix.grad is not None and blend.mix.grad.abs() > 1e-6, "also outside [0, 1]"


@torch.no_grad()
def test_the_residual_block_mixes_frames() -> None:
    torch.manual_seed(0)
    layer = TemporalResBlock(8, norm_num_groups=4)
    for conv in (layer.conv1, layer.conv2):
        conv.weight.add_(noise(*conv.weight.shape) * 0.2)
    hidden_states = noise(FRAMES, 8, 3, 4)
    changed = hidden_states.clone()
    changed[2, :, 0, 0] += 1
    difference = (layer(changed, FRAMES) - layer(hidden_states, FRAMES))[:, :, 0, 0].abs().amax(dim=1)
    assert bool((difference > 1e-4).all())


@torch.no_grad()
def test_the_residual_block_takes_its_statistics_over_all_frames_of_a_video() -> None:
    """Convolutions that pass frames on leave twice SiLU((x - mean) / std), over a group's channels, frames, cells."""
    layer = TemporalResBlock(4, norm_num_groups=2)
    hidden_states = noise(2 * FRAMES, 4, 3, 2) * torch.linspace(0.2, 3, 2 * FRAMES)[:, None, None, None]
    states = hidden_states.double().unflatten(0, (2, FRAMES))  # (B, F, C, H, W)
    for _ in range(2):
        groups = states.unflatten(2, (2, 2))  # (B, F, G, C / G, H, W)
        of = (1, 3, 4, 5)
        normed = (groups - groups.mean(of, keepdim=True)) / (groups.var(of, keepdim=True, correction=0) + 1e-6).sqrt()
        states = torch.nn.functional.silu(normed.flatten(2, 3))
    expected = hidden_states + states.flatten(0, 1).float()
    torch.testing.assert_close(layer(hidden_states, FRAMES), expected, rtol=1e-5, atol=1e-5)
