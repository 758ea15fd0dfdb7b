"""The temporal convolution against a factorised Conv3d, make-a-video-pytorch, and what it refuses."""

import pytest
import torch
from make_a_video_pytorch.make_a_video import PseudoConv3d
from torch import nn

from inflate.errors import InputError
from inflate.layers import TemporalConv
from inflate.video import fold_frames, unfold_frames


def trained(channels: int, kernel_size: int = 3, depthwise: bool = False) -> TemporalConv:
    """A layer whose weights are anything but the Dirac kernel."""
    conv = TemporalConv(channels, kernel_size, depthwise)
    nn.init.normal_(conv.weight, std=0.3)
    nn.init.normal_(conv.bias)
    return conv


@pytest.mark.reference
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("kernel_size", "num_frames"), [(1, 4), (3, 4), (5, 4), (7, 2), (3, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_equals_a_conv3d_in_float64(
    kernel_size: int, num_frames: int, depthwise: bool, memory_format: torch.memory_format
) -> None:
    """Conv3d (k, 1, 1) with the same weights: outputs, and gradients of input, weight and bias."""
    ours = trained(6, kernel_size, depthwise).double()
    reference = nn.Conv3d(
        6, 6, (kernel_size, 1, 1), padding=(kernel_size // 2, 0, 0), groups=6 if depthwise else 1, dtype=torch.float64
    )
    assert reference.bias is not None
    with torch.no_grad():
        reference.weight.copy_(ours.weight[..., None, None])
        reference.bias.copy_(ours.bias)
    video = torch.randn(3, 6, num_frames, 5, 4, dtype=torch.float64)
    folded = fold_frames(video).contiguous(memory_format=memory_format).requires_grad_()
    video.requires_grad_()

    answer, expected = unfold_frames(ours(folded, num_frames), num_frames), reference(video)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-13)

    weighting = torch.randn_like(expected)
    (answer * weighting).sum().backward()
    (expected * weighting).sum().backward()
    assert folded.grad is not None and video.grad is not None
    assert ours.weight.grad is not None and reference.weight.grad is not None
    torch.testing.assert_close(unfold_frames(folded.grad, num_frames), video.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.weight.grad, reference.weight.grad[..., 0, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.bias.grad, reference.bias.grad, rtol=0, atol=1e-12)


@pytest.mark.reference
@pytest.mark.parametrize("temporal_kernel_size", [3, 5])
def test_equals_make_a_video_pytorch(temporal_kernel_size: int) -> None:
    """Conv2d of the image model, then our layer, against its ``PseudoConv3d`` with the same weights."""
    reference = PseudoConv3d(3, 8, kernel_size=3, temporal_kernel_size=temporal_kernel_size)
    assert reference.temporal_conv is not None
    ours = TemporalConv(8, temporal_kernel_size)
    assert torch.equal(ours.weight, reference.temporal_conv.weight), "both start as Dirac"
    ours = trained(8, temporal_kernel_size)
    reference.temporal_conv.load_state_dict(ours.state_dict())
    video = torch.randn(2, 3, 4, 6, 5)
    answer = unfold_frames(ours(reference.spatial_conv(fold_frames(video)), 4), 4)
    torch.testing.assert_close(answer, reference(video), rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_a_conv1d() -> None:
    trained(6).load_state_dict(nn.Conv1d(6, 6, 3).state_dict())
    trained(6, 5, depthwise=True).load_state_dict(nn.Conv1d(6, 6, 5, groups=6).state_dict())


def test_videos_of_a_batch_do_not_mix() -> None:
    conv = trained(6)
    video = torch.randn(2, 6, 4, 5, 4)
    both = unfold_frames(conv(fold_frames(video), 4), 4)
    for index in range(2):
        alone = unfold_frames(conv(fold_frames(video[index : index + 1]), 4), 4)
        torch.testing.assert_close(both[index : index + 1], alone)
    as_one = unfold_frames(conv(fold_frames(video), 8), 8)
    assert not torch.allclose(as_one[0, :, 3], both[0, :, 3]), "as one video of 8 frames the fourth sees the fifth"


@pytest.mark.parametrize("kernel_size", [2, 0, -1])
def test_refuses_a_kernel_without_a_middle(kernel_size: int) -> None:
    with pytest.raises(InputError, match=f"odd kernel size of at least 1, got {kernel_size}"):
        TemporalConv(4, kernel_size)


def test_refuses_parts_of_videos() -> None:
    with pytest.raises(InputError, match="8 pictures is not whole videos of 3 frames"):
        TemporalConv(4)(torch.zeros(8, 4, 2, 2), 3)
