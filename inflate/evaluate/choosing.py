"""Which feature network a name stands for: a file or folder that people bring, a repository, or a package's own."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from inflate.checkpoint.hub import is_hub_name
from inflate.errors import InputError
from inflate.evaluate.inception import Inception
from inflate.evaluate.packaged import PACKAGED, PackagedFeatures
from inflate.evaluate.scripted import I3d, ScriptedInception
from inflate.evaluate.videomae import VideoMae
from inflate.evaluate.videos import FeatureNetwork


class _OfPictures:
    """Packaged features of single frames."""

    published, preprocessing = False, "the network's own"

    def __init__(self, clips: PackagedFeatures) -> None:
        self.name, self.weights, self._clips = clips.name, clips.weights, clips

    def __call__(self, clips: Tensor) -> Tensor:
        return self._clips.of_pictures(clips)


def video_network(
    source: str,
    preprocessing: str = "",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FeatureNetwork:
    """I3D from a TorchScript file, VideoMAE from a folder, a repository or its ``.pth``, or packaged features.

    Args:
        source: what the user named; nothing is fetched unless it is a repository's name that is no path here.
        preprocessing: one that the network has; empty for its usual one.
        device: where it runs.
        dtype: its number format.

    Raises:
        InputError: nothing there, or something else.
    """
    if source in PACKAGED:
        _refuse(preprocessing, source)
        return PackagedFeatures(source, device, dtype)
    path = _there(source)
    if path.is_file() and is_torchscript(path):
        return I3d(path, preprocessing or "styleganv", device, dtype)
    return VideoMae(source, preprocessing or "cd-fvd", device, dtype)


def picture_network(
    source: str,
    preprocessing: str = "",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FeatureNetwork:
    """FID's Inception from its ``.pth`` or as TorchScript, or packaged features; as :func:`video_network`."""
    if source in PACKAGED:
        _refuse(preprocessing, source)
        return _OfPictures(PackagedFeatures(source, device, dtype))
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there is no file {source}; name FID's Inception by its path, or {' or '.join(PACKAGED)}")
    if is_torchscript(path):
        _refuse(preprocessing, source)
        return ScriptedInception(path, device, dtype)
    return Inception(path, preprocessing or "torchmetrics", device, dtype)


def is_torchscript(path: Path) -> bool:
    """Whether a file is TorchScript: a zip with code in it, where a saved state dict is one without."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def _there(source: str) -> Path:
    path = Path(source)
    if not path.exists() and not is_hub_name(source):
        raise InputError(f"there is no {source}; name a feature network by its path, or {' or '.join(PACKAGED)}")
    return path


def _refuse(preprocessing: str, source: str) -> None:
    if preprocessing:
        raise InputError(f"{source} has one preprocessing, its own; leave out --preprocessing")
