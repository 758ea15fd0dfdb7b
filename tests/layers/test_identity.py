"""Every new layer answers its input, bit for bit, in every dtype; a trained one does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from inflate.layers import POSITIONS, FrameRateEmbedding, TemporalAttention, TemporalConv

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: TemporalConv(12),
    "conv-1": lambda: TemporalConv(12, kernel_size=1),
    "conv-5-depthwise": lambda: TemporalConv(12, kernel_size=5, depthwise=True),
    **{
        f"attention-{position}": lambda position=position: TemporalAttention(12, 3, 4, 4, position)
        for position in POSITIONS
    },
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def train_a_little(layer: nn.Module) -> None:
    """Move every weight, as training would."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape).to(parameter) * 0.1)


def hard_pictures(dtype: torch.dtype) -> Tensor:
    """``(8, 12, 5, 6)``: numbers of all sizes from the smallest to large ones, and zeros of both signs."""
    pictures = torch.randn(8, 12, 5, 6, dtype=torch.float64) * 10.0 ** torch.randint(-6, 4, (8, 12, 5, 6))
    pictures = pictures.to(dtype)
    pictures[0, :, 0] = -0.0
    pictures[1, 0] = torch.finfo(dtype).smallest_normal
    pictures[2] = 0.0
    pictures[3, :, 1] = 3e4
    return pictures


def bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, so that -0.0 and 0.0 differ."""
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(width)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_new_layer_is_the_identity(name: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    layer = LAYERS[name]().to(dtype)
    pictures = hard_pictures(dtype).contiguous(memory_format=memory_format)
    answer = layer(pictures, 4)
    assert answer.dtype == dtype
    assert answer.is_contiguous(memory_format=memory_format)
    assert torch.equal(bits(answer), bits(pictures))
    train_a_little(layer)
    assert not torch.equal(layer(pictures, 4), pictures)


@pytest.mark.parametrize("num_frames", [1, 2, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_identity_for_any_number_of_frames(name: str, num_frames: int) -> None:
    layer = LAYERS[name]()
    pictures = hard_pictures(torch.float32)
    assert torch.equal(bits(layer(pictures, num_frames)), bits(pictures))
    train_a_little(layer)
    assert not torch.equal(layer(pictures, num_frames), pictures)


@pytest.mark.parametrize("name", LAYERS)
def test_identity_for_a_tensor_that_is_not_contiguous(name: str) -> None:
    layer = LAYERS[name]()
    pictures = hard_pictures(torch.float32).repeat(1, 1, 1, 2)[..., ::2]
    assert not pictures.is_contiguous()
    assert torch.equal(bits(layer(pictures, 4)), bits(pictures))
    train_a_little(layer)
    torch.testing.assert_close(layer(pictures, 4), layer(pictures.contiguous(), 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str, dtype: torch.dtype) -> None:
    """Float32 weights under autocast: the identity before training; after it, near the answer without autocast."""
    layer = LAYERS[name]()
    pictures = torch.randn(8, 12, 5, 6).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer(pictures, 4)
        assert answer.dtype == dtype
        assert torch.equal(bits(answer), bits(pictures))
    train_a_little(layer)
    with torch.autocast("cpu", torch.bfloat16):  # anew: it keeps the weights it has cast
        answer = layer(pictures, 4)
    assert not torch.equal(answer, pictures)
    torch.testing.assert_close(answer.float(), layer(pictures.float(), 4), atol=0.05, rtol=0.02)
    answer.float().square().sum().backward()
    assert pictures.grad is not None and pictures.grad.isfinite().all()
    for parameter in layer.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32


def test_new_frame_rate_embedding_is_zero() -> None:
    embedding = FrameRateEmbedding(16)
    fps = torch.tensor([1.0, 8.0, 30.0])
    assert torch.equal(embedding(fps), torch.zeros(3, 16))
    train_a_little(embedding)
    assert not torch.equal(embedding(fps), torch.zeros(3, 16))


def test_gradients_at_the_first_step() -> None:
    """The Dirac convolution learns at once; of attention only the zero projection does, the rest a step later."""
    pictures, target = torch.randn(8, 12, 5, 6), torch.randn(8, 12, 5, 6)

    def moving(layer: nn.Module) -> set[str]:
        layer.zero_grad()
        (layer(pictures, 4) - target).square().mean().backward()
        return {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    for conv in (TemporalConv(12), TemporalConv(12, 5, depthwise=True)):
        assert moving(conv) == {"weight", "bias"}
        assert conv.weight.grad is not None
        assert (conv.weight.grad != 0).all(), "every tap of every channel"
    attention = TemporalAttention(12, 3, 4, 16)
    assert moving(attention) == {"to_out.weight", "to_out.bias"}
    torch.optim.SGD(attention.parameters(), 0.1).step()
    assert moving(attention) == {name for name, _ in attention.named_parameters()}
    embedding = FrameRateEmbedding(16)
    embedding(torch.tensor([8.0])).sum().backward()
    assert {n for n, p in embedding.named_parameters() if p.grad is not None and p.grad.abs().max() > 0} == {
        "linear_2.weight",
        "linear_2.bias",
    }
