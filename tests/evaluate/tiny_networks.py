"""Tiny networks with the interfaces of published ones, as files, and made videos to show them."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inflate.data.writing import write_video


class TinyI3d(nn.Module):
    """``forward`` of the published ``i3d_torchscript.pt``: rescaling from bytes and resizing if asked, then 16 logits;
    without ``return_features`` their softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(3, 16, (3, 7, 7), stride=(1, 7, 7), padding=(1, 0, 0))

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        """Clips ``(B, 3, F, H, W)`` to ``(B, 16)``."""
        if rescale:
            x = 2 * x / 255 - 1
        if resize:
            x = functional.interpolate(x, [x.shape[2], 224, 224], mode="trilinear", align_corners=False)
        logits = self.convolution(x).abs().mean(dim=[2, 3, 4])
        return logits if return_features else logits.softmax(1)


class TinyC3d(nn.Module):
    """``forward`` of StyleGAN-V's ``c3d_ucf101.pt``: bytes as floats at any size to class probabilities."""

    def __init__(self, logits: bool = False) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        """Clips ``(B, 3, F, H, W)``: the class is the colour that is brightest, the more surely the brighter."""
        found = x.mean(dim=[2, 3, 4]) / 16
        return found if self.logits else found.softmax(1)


class TinyInception(nn.Module):
    """``forward`` of NVIDIA's ``inception-2015-12-05.pt``."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        """Pictures ``(N, 3, H, W)`` of bytes as floats to ``(N, 12)``."""
        return functional.adaptive_avg_pool2d(img, (2, 2)).flatten(1) / 255


def scripted(path: Path, network: nn.Module) -> Path:
    """Save as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's advice to export instead
        torch.jit.script(network.eval()).save(str(path))
    return path


def moving(seed: int, frames: int, step: int, size: int = 32) -> np.ndarray:
    """A pattern that goes ``step`` pixels to the right from frame to frame: uint8 ``(frames, size, size, 3)``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = coarse.repeat(size // 8, 0).repeat(size // 8, 1)
    return np.stack([np.roll(picture, step * number, 1) for number in range(frames)])


def write_videos(folder: Path, count: int, frames: int = 12, step: int = 1, split: bool = False) -> Path:
    """Videos with captions at 8 frames a second, in ``train`` and every third in ``test`` if ``split``."""
    for number in range(count):
        place = folder / ("test" if number % 3 == 0 else "train") if split else folder
        write_video(place / f"v{number:02d}.mp4", moving(number, frames, step), 8.0)
        (place / f"v{number:02d}.txt").write_text(f"thing {number}")
    return folder
