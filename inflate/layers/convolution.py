"""The temporal half of the pseudo-3D convolution (Make-A-Video, arXiv:2209.14792, section 3.2.1)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.layers.inference import convolve_over_frames, quick_answer
from inflate.layers.layer import TemporalLayer
from inflate.layers.starting import StartsAsIdentity, all_zero, is_plain
from inflate.video import check_num_frames


class TemporalConv(StartsAsIdentity, TemporalLayer):
    """A convolution over the frames of each pixel: ``Conv_P3D(h) = Conv1D(Conv2D(h) . T) . T``, the outer half.

    ``weight`` is the whole kernel, laid out as ``nn.Conv1d``'s: ``(channels, channels, kernel_size)``, or
    ``(channels, 1, kernel_size)`` if ``depthwise``; ``bias`` is ``(channels,)``. Frames beyond either end count as
    zeros. A new layer holds the Dirac kernel, which answers its input, and its weights have gradients from the start.
    The kernel size must be odd (``InputError`` otherwise), so that a frame is the middle of what it sees.
    """

    options: ClassVar[Mapping[str, Any]] = {"kernel_size": 3, "depthwise": False}
    kind = "convolution"

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

    @classmethod
    def words(cls, options: Mapping[str, Any]) -> str:
        """See `TemporalLayer`."""
        return f"{'depthwise ' if options['depthwise'] else ''}convolution over {options['kernel_size']} frames"

    @classmethod
    def faults(cls, options: Mapping[str, Any]) -> Iterator[str]:
        """See `TemporalLayer`; even kernels have no middle."""
        if options["kernel_size"] < 1 or options["kernel_size"] % 2 == 0:
            yield f"kernel_size must be odd and positive, got {options['kernel_size']}"
        yield from super().faults(options)

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
        check_num_frames(hidden_states.shape[0], num_frames)
        answer = quick_answer(self, hidden_states, num_frames)
        if answer is not None:
            return answer
        # x - conv(x, dirac - W) is conv(x, W). With W still Dirac it subtracts +0.0, which leaves every finite x as it
        # is, -0.0 too, in any dtype and on any backend; conv(x, dirac) would be rounded by TF32 and the like.
        return hidden_states - convolve_over_frames(
            hidden_states, self._dirac_minus_weight(), 0 - self.bias, num_frames
        )

    def _dirac_minus_weight(self) -> Tensor:
        difference = 0 - self.weight
        self._middle(difference).add_(1)
        return difference

    def _middle(self, weight: Tensor) -> Tensor:
        """What is 1 in the Dirac kernel: a view of ``(channels,)``."""
        middle = weight[:, :, self.kernel_size // 2]
        return middle[:, 0] if self.depthwise else middle.diagonal()
