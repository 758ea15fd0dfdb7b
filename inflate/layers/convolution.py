"""The temporal half of the pseudo-3D convolution (Make-A-Video, arXiv:2209.14792, section 3.2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.inference import has_own_way
from inflate.layers.starting import all_zero, is_plain
from inflate.video import check_num_frames


class TemporalConv(nn.Module):
    """A convolution over the frames of each pixel: ``Conv_P3D(h) = Conv1D(Conv2D(h) . T) . T``, the outer half.

    ``weight`` is the whole kernel, laid out as ``nn.Conv1d``'s: ``(channels, channels, kernel_size)``, or
    ``(channels, 1, kernel_size)`` if ``depthwise``; ``bias`` is ``(channels,)``. Frames beyond either end count as
    zeros. A new layer holds the Dirac kernel, which answers its input, and its weights have gradients from the start.
    The kernel size must be odd (``InputError`` otherwise), so that a frame is the middle of what it sees.
    """

    def __init__(self, channels: int, kernel_size: int = 3, depthwise: bool = False) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"a temporal convolution needs an odd kernel size of at least 1, got {kernel_size}")
        self.channels = channels
        self.kernel_size = kernel_size
        self.depthwise = depthwise
        # In memory the input channels vary fastest, as in a channels-last kernel: nothing to lay out anew in each call.
        self.weight = nn.Parameter(torch.empty(channels, kernel_size, 1 if depthwise else channels).transpose(1, 2))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity: Dirac kernel, zero bias."""
        nn.init.dirac_(self.weight, groups=self.channels if self.depthwise else 1)
        nn.init.zeros_(self.bias)

    def identity_witness(self) -> object:
        """Zero while the layer is the identity."""
        return self.bias

    def is_identity(self) -> bool:
        """Whether kernel and bias are still those of `reset_parameters`."""
        if not (all_zero(self.bias) and is_plain(self.weight)):
            return False
        ones = self._middle(self.weight)
        return int(self.weight.count_nonzero()) == self.channels and bool((ones == 1).all())

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return f"{self.channels}, kernel_size={self.kernel_size}, depthwise={self.depthwise}"

    def forward(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """``(B * F, C, H, W)``, frames fastest, to the same shape, dtype and memory format.

        Raises ``InputError`` if the batch is not whole videos of ``num_frames`` frames.
        """
        batch, channels, height, width = hidden_states.shape
        check_num_frames(batch, num_frames)
        if self.depthwise and has_own_way(hidden_states, self.bias):
            return self._mix_each_channel(hidden_states, num_frames)
        # A 2D convolution over (frames, pixels): in channels-last memory this is a view, with nothing to copy. The
        # kernel asks for channels-last too, since other memory is up to twice as slow for several videos at once.
        frames_by_pixels = hidden_states.permute(0, 2, 3, 1).reshape(-1, num_frames, height * width, channels)
        # By way of (channels, kernel_size, 1, inputs): with one more size of 1 torch does not see the memory format.
        kernel = self._dirac_minus_weight().transpose(1, 2).unsqueeze(2).permute(0, 3, 1, 2)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        change = F.conv2d(
            frames_by_pixels.permute(0, 3, 1, 2),
            kernel,
            0 - self.bias,
            padding=(self.kernel_size // 2, 0),
            groups=channels if self.depthwise else 1,
        )
        change = change.permute(0, 2, 3, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        # x - conv(x, dirac - W) is conv(x, W). With W still Dirac it subtracts +0.0, which leaves every finite x as it
        # is, -0.0 too, in any dtype and on any backend; conv(x, dirac) would be rounded by TF32 and the like.
        return hidden_states - change

    def _mix_each_channel(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        """Depthwise, without gradients: for each tap a scaled sum of the frames, none of them copied."""
        changed = torch.empty_like(hidden_states)
        frames, answer = (states.unflatten(0, (-1, num_frames)) for states in (hidden_states, changed))
        half = self.kernel_size // 2
        taps = self.weight[:, 0, :, None, None].unbind(1)
        torch.addcmul(self.bias[:, None, None], frames, taps[half], out=answer)
        for shift in range(1, min(half, num_frames - 1) + 1):
            answer[:, shift:].addcmul_(frames[:, :-shift], taps[half - shift])
            answer[:, :-shift].addcmul_(frames[:, shift:], taps[half + shift])
        return changed

    def _dirac_minus_weight(self) -> Tensor:
        difference = 0 - self.weight
        self._middle(difference).add_(1)
        return difference

    def _middle(self, weight: Tensor) -> Tensor:
        """What is 1 in the Dirac kernel: a view of ``(channels,)``."""
        middle = weight[:, :, self.kernel_size // 2]
        return middle[:, 0] if self.depthwise else middle.diagonal()
