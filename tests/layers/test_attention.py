"""Temporal attention against make-a-video-pytorch and diffusers with the same weights, and what positions do."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from make_a_video_pytorch.make_a_video import SpatioTemporalAttention
from torch import nn

from inflate.errors import InputError
from inflate.layers import POSITIONS, Position, TemporalAttention, sinusoidal_positions
from inflate.layers import attention as attention_module


def trained(position: Position = "relative", max_frames: int = 8) -> TemporalAttention:
    """Width 12, 3 heads of 4, with every weight away from its start."""
    layer = TemporalAttention(12, 3, 4, max_frames, position)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer


@pytest.mark.reference
@pytest.mark.parametrize("position", ["none", "sinusoidal"])
@pytest.mark.parametrize("num_frames", [1, 6])
def test_equals_diffusers(position: Position, num_frames: int) -> None:
    """diffusers' ``Attention`` with the same projections, over the frames of each pixel, after the same LayerNorm."""
    ours = trained(position).double()
    reference = Attention(12, heads=3, dim_head=4, bias=False).double()
    theirs = {name.replace("to_out.", "to_out.0."): tensor for name, tensor in ours.state_dict().items()}
    reference.load_state_dict({name: tensor for name, tensor in theirs.items() if not name.startswith("norm.")})
    pictures = torch.randn(2 * num_frames, 12, 3, 5, dtype=torch.float64)

    by_pixel = rearrange(pictures, "(b f) c h w -> (b h w) f c", f=num_frames)
    states = nn.functional.layer_norm(by_pixel, (12,), ours.norm.weight, ours.norm.bias)
    if position == "sinusoidal":
        states = states + sinusoidal_positions(num_frames, 12).double()
    expected = rearrange(by_pixel + reference(states), "(b h w) f c -> (b f) c h w", h=3, w=5)
    torch.testing.assert_close(ours(pictures, num_frames), expected, rtol=0, atol=1e-12)


@pytest.mark.reference
def test_equals_make_a_video_pytorch() -> None:
    """Its temporal attention with the same projections and the same bias per head and distance.

    Projections are copied as they are (its output has no bias: ours is zero); its position bias is a small network of
    the distance, whose answers fill our table. Its norm is an RMSNorm: there our LayerNorm is replaced by it, so norms
    are not compared here.
    """
    reference = SpatioTemporalAttention(12, dim_head=4, heads=3, add_feed_forward=False).double()
    theirs, position_bias = reference.temporal_attn, reference.temporal_rel_pos_bias
    assert position_bias is not None
    nn.init.normal_(theirs.to_out.weight)
    position_bias.float()  # its distances are float32, whatever its weights are
    num_frames = 6
    ours = trained("relative", max_frames=num_frames).double()
    ours.norm = theirs.norm  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        ours.to_q.weight.copy_(theirs.to_q.weight)
        ours.to_k.weight.copy_(theirs.to_kv.weight[:12])
        ours.to_v.weight.copy_(theirs.to_kv.weight[12:])
        ours.to_out.weight.copy_(theirs.to_out.weight)
        ours.to_out.bias.zero_()
        distance = torch.arange(1 - num_frames, num_frames).float()[:, None]
        for network in position_bias.net:
            distance = network(distance)
        assert ours.relative_bias is not None
        # Its distance is query minus key; ours is key minus query.
        ours.relative_bias.copy_(distance.flip(0))
        assert ours.relative_bias.std(0).min() > 0.01, "the bias depends on the distance"

        video = torch.randn(2, 12, num_frames, 3, 5, dtype=torch.float64)
        by_pixel = rearrange(video, "b c f h w -> (b h w) f c")
        expected = theirs(by_pixel, rel_pos_bias=position_bias(num_frames)) + by_pixel
        expected = rearrange(expected, "(b h w) f c -> (b f) c h w", h=3, w=5)
        pictures = rearrange(video, "b c f h w -> (b f) c h w")
        torch.testing.assert_close(ours(pictures, num_frames), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", POSITIONS)
def test_pictures_and_tokens_are_the_same_thing(position: Position) -> None:
    layer = trained(position)
    pictures = torch.randn(8, 12, 3, 5)
    answer = layer(rearrange(pictures, "b c h w -> b (h w) c"), 4)
    torch.testing.assert_close(rearrange(answer, "b (h w) c -> b c h w", h=3), layer(pictures, 4))


@pytest.mark.parametrize("position", POSITIONS)
def test_pixels_and_videos_do_not_mix(position: Position) -> None:
    """A change at one pixel of one video reaches all frames of that pixel and nothing else."""
    layer = trained(position)
    pictures = torch.randn(8, 12, 3, 5)
    changed = pictures.clone()
    changed[5, :, 1, 2] += torch.randn(12)
    difference = (layer(changed, 4) - layer(pictures, 4)).abs().sum(1) > 1e-6
    expected = torch.zeros(8, 3, 5, dtype=torch.bool)
    expected[4:, 1, 2] = True
    assert torch.equal(difference, expected)


@pytest.mark.parametrize("position", POSITIONS)
def test_order_of_frames_counts_unless_there_are_no_positions(position: Position) -> None:
    layer = trained(position)
    pictures = torch.randn(4, 12, 3, 5)
    order = torch.tensor([2, 0, 3, 1])
    same = torch.allclose(layer(pictures[order], 4), layer(pictures, 4)[order], atol=1e-5)
    assert same == (position == "none")


@pytest.mark.parametrize("position", ["relative", "rotary"])
def test_only_the_distance_between_frames_counts(position: Position) -> None:
    """Two frames answer the same alone and as the last of five whose first three are hidden from them."""
    layer = trained(position, max_frames=8)
    frames = torch.randn(2, 12, 1, 1)
    alone = layer(frames, 2)
    states = torch.cat((torch.zeros(3, 12, 1, 1), frames))
    original = nn.functional.scaled_dot_product_attention

    def only_the_last_two(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None):
        hidden = torch.tensor([float("-inf")] * 3 + [0.0] * 2)
        return original(query, key, value, attn_mask=hidden.expand(5, 5) + (0 if attn_mask is None else attn_mask))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module.F, "scaled_dot_product_attention", only_the_last_two)
        shifted = layer(states, 5)[3:]
    torch.testing.assert_close(shifted, alone)


def test_more_frames_than_the_table_share_its_last_distances() -> None:
    """Distances of ``max_frames`` and more take the bias of the largest: the same as a table that repeats it."""
    short, long = trained("relative", max_frames=3), trained("relative", max_frames=8)
    assert short.relative_bias is not None and long.relative_bias is not None
    tensors = short.state_dict()
    table = tensors.pop("relative_bias")
    tensors["relative_bias"] = torch.cat((table[:1].expand(5, -1), table, table[-1:].expand(5, -1)))
    long.load_state_dict(tensors)
    pictures = torch.randn(8, 12, 3, 5)
    assert torch.equal(short(pictures, 8), long(pictures, 8))
    with torch.no_grad():
        long.relative_bias[0] += 1
    assert not torch.equal(short(pictures, 8), long(pictures, 8))


def test_new_relative_bias_falls_with_the_distance() -> None:
    bias = TemporalAttention(12, 2, 4, 3).relative_bias
    assert bias is not None
    expected = torch.tensor([-2.0, -1.0, 0.0, -1.0, -2.0])
    torch.testing.assert_close(bias, torch.stack((expected / 2**4, expected / 2**8), dim=1))


def test_many_pixels_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = trained()
    pictures = torch.randn(8, 12, 3, 5)
    whole = layer(pictures, 4)
    sizes = []
    original = nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, *arguments: torch.Tensor, attn_mask: torch.Tensor | None) -> torch.Tensor:
        sizes.append(query.shape[0])
        return original(query, *arguments, attn_mask=attn_mask)

    monkeypatch.setattr(attention_module, "MAX_ATTENTION_BATCH", 7)
    monkeypatch.setattr(attention_module.F, "scaled_dot_product_attention", watched)
    torch.testing.assert_close(layer(pictures, 4), whole)
    assert sizes == [7, 7, 7, 7, 2]


def test_gradients_agree_with_finite_differences() -> None:
    for position in POSITIONS:
        layer = trained(position).double()
        pictures = torch.randn(3, 12, 1, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, layer=layer: layer(x, 3), pictures, fast_mode=True)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"got 'rotory' \(did you mean 'rotary'\?\)"):
        TemporalAttention(12, 3, 4, 8, "rotory")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="head_dim must be even, got 3"):
        TemporalAttention(12, 4, 3, 8, "rotary")
    with pytest.raises(InputError, match="at least 1, got 12, 3, 4 and 0"):
        TemporalAttention(12, 3, 4, 0)
    with pytest.raises(InputError, match="8 pictures is not whole videos of 3 frames"):
        TemporalAttention(12, 3, 4, 8)(torch.zeros(8, 12, 2, 2), 3)
