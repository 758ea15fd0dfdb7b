"""The Inception of FID, from its published weights by path: torchvision's, with the poolings of TensorFlow's of 2015.

Weights are those of pytorch-fid and torch-fidelity (one file by two names). Pictures are treated as torchmetrics does:
bytes to 299 x 299 px bilinearly with antialiasing, then ``(x - 128) / 128``; without antialiasing as TensorFlow 1 did
it and as published FIDs mostly were computed (``tensorflow``).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.inception import InceptionE
from torchvision.models.inception import inception_v3 as torchvision_inception

from inflate.errors import InputError, nearest
from inflate.evaluate.weights import read_state, weights_of

_SIDE, _CLASSES = 299, 1008
_PREPROCESSING = ("torchmetrics", "tensorflow")
_POOLED = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b")


class WithoutPadding(nn.Module):
    """Before a ``branch_pool``: turns a 3 x 3 mean that counts zeros beyond the edge into one that does not."""

    def forward(self, pooled: Tensor) -> Tensor:
        """``(N, C, H, W)``, scaled along the edges by 9 over the number of places there are."""
        ones = torch.ones_like(pooled[:1, :1])
        return pooled / functional.avg_pool2d(ones, 3, stride=1, padding=1)


class _LastBlock(InceptionE):
    """Takes a maximum where the others take a mean, as the graph of 2015 does (FIDInceptionE_2 of pytorch-fid)."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 2048, H, W)`` to as many channels."""
        once, thrice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(thrice),
            self.branch3x3dbl_3b(thrice),
            self.branch_pool(functional.max_pool2d(x, 3, stride=1, padding=1)),
        ]
        return torch.cat(branches, 1)


def new_inception() -> Any:
    """The network without weights, in evaluation mode."""
    network: Any = torchvision_inception(weights=None, num_classes=_CLASSES, aux_logits=False, init_weights=False)
    for name in _POOLED:
        block = getattr(network, name)
        block.branch_pool = nn.Sequential(WithoutPadding(), block.branch_pool)
    network.Mixed_7c = _LastBlock(2048)
    network.fc, network.dropout = nn.Identity(), nn.Identity()
    return network.eval().requires_grad_(False)


class Inception:
    """Pictures uint8 ``(N, H, W, 3)`` to the 2048 pooled features of FID, float32 on the CPU.

    Raises:
        InputError: no such file, or weights of something else.
    """

    name = "inception"

    def __init__(
        self,
        path: Path,
        preprocessing: str = "torchmetrics",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if preprocessing not in _PREPROCESSING:
            raise InputError(
                f"--preprocessing is {preprocessing!r}{nearest(preprocessing, _PREPROCESSING)}; for Inception use "
                f"{' or '.join(_PREPROCESSING)}"
            )
        self.weights = weights_of(path)
        self.published = bool(self.weights.published)
        self.preprocessing, self.device, self.dtype = preprocessing, torch.device(device), dtype
        network = new_inception()
        state = {_name(key): value for key, value in read_state(path).items() if not key.startswith("fc.")}
        expected = network.state_dict()
        # The published file was saved by a torch that did not count batches yet.
        state |= {key: expected[key] for key in expected if key.endswith("num_batches_tracked")}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"{path} holds no weights of FID's Inception; name pt_inception-2015-12-05-6726825d.pth"
            ) from error
        self.network = network.to(device=device, dtype=dtype)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Features of pictures."""
        planes = pictures.permute(0, 3, 1, 2).float().to(self.device)
        if self.preprocessing == "torchmetrics":
            planes = functional.interpolate(
                planes, (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True
            )
        else:
            planes = _like_tensorflow(planes, _SIDE)
        return self.network(((planes - 128) / 128).to(self.dtype)).float().cpu()


def _name(key: str) -> str:
    """Where the published weights go: a pooled branch lies behind :class:`WithoutPadding`."""
    block, _, rest = key.partition(".branch_pool.")
    return f"{block}.branch_pool.1.{rest}" if rest and block in _POOLED else key


def _like_tensorflow(planes: Tensor, side: int) -> Tensor:
    """TensorFlow 1's bilinear resizing: samples at ``i * old / new``, no half pixels, no antialiasing."""
    height, width = planes.shape[-2:]
    rows, columns = (torch.arange(side, device=planes.device) * (old / side) for old in (height, width))
    # grid_sample with aligned corners takes -1 for the first pixel's middle and 1 for the last one's.
    y, x = (2 * at / max(old - 1, 1) - 1 for at, old in ((rows, height), (columns, width)))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None].expand(len(planes), -1, -1, -1)
    return functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True)
