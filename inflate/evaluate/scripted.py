"""Feature networks that people bring as TorchScript files: I3D, C3D and other classifiers of clips, Inception.

Clips come as uint8 ``(B, F, H, W, 3)``, pictures as uint8 ``(N, H, W, 3)``; the network sees float ``(B, 3, F, H, W)``
or ``(N, 3, H, W)``. A TorchScript file holds code of torch's own language alone; nothing else in it is run.
"""

import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from inflate.errors import InputError, nearest
from inflate.evaluate.weights import Weights, weights_of

I3dPreprocessing = Literal["styleganv", "videogpt"]
Pixels = Literal["bytes", "unit", "signed"]
_FLAGS = ("rescale", "resize", "return_features")
_I3D_SIDE = 224


class Scripted:
    """A TorchScript module by path, in evaluation mode, with the names of what its ``forward`` takes.

    Raises:
        InputError: no such file, or no TorchScript.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.weights: Weights = weights_of(path)
        self.path, self.device, self.dtype = path, torch.device(device), dtype
        try:
            with warnings.catch_warnings():
                # torch advises its authors to export otherwise; the published files are as they are.
                warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated")
                module: Any = torch.jit.load(str(path), map_location="cpu")
            self.module = module.eval().to(device=self.device, dtype=dtype)
            self.arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise InputError(
                f"{path} is not a TorchScript file; name one, such as the published i3d_torchscript.pt"
            ) from error

    def __call__(self, inputs: Tensor, **flags: bool) -> Tensor:
        """What the network gives for a batch, float32 on the CPU."""
        try:
            with torch.inference_mode():
                made = self.module(inputs.to(self.device, self.dtype), **flags)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{self.path} refused a batch of shape {tuple(inputs.shape)}: {reason}") from error
        if not isinstance(made, Tensor) or made.shape[0] != inputs.shape[0]:
            raise InputError(f"{self.path} gives no row for each of its inputs; name a network of features")
        return made.float().cpu().flatten(1)


class I3d:
    """FVD's I3D by the interface of the published file: ``forward(x, rescale, resize, return_features)``.

    ``styleganv``: bytes as floats, which the network itself rescales to [-1, 1] and resizes to 224 x 224 px.
    ``videogpt``: frames at 224 x 224 px bilinearly without antialiasing, then scaled to [-1, 1], as VideoGPT, TATS and
    cd-fvd do it. Features are the 400 logits of Kinetics either way.
    """

    name = "i3d"

    def __init__(
        self,
        path: Path,
        preprocessing: str = "styleganv",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        allowed = get_args(I3dPreprocessing)
        if preprocessing not in allowed:
            raise InputError(
                f"--preprocessing is {preprocessing!r}{nearest(preprocessing, allowed)}; for I3D use "
                f"{' or '.join(allowed)}"
            )
        self.network = Scripted(path, device, dtype)
        missing = [flag for flag in _FLAGS if flag not in self.network.arguments]
        if missing:
            raise InputError(
                f"{path} takes {', '.join(self.network.arguments)}, and FVD's I3D takes {', '.join(_FLAGS)} too; name "
                "the published i3d_torchscript.pt, or one of its interface"
            )
        self.weights, self.preprocessing = self.network.weights, preprocessing
        self.published = self.weights.published == "i3d_torchscript.pt"

    def __call__(self, clips: Tensor) -> Tensor:
        """Clips uint8 ``(B, F, H, W, 3)`` to ``(B, D)``."""
        if self.preprocessing == "videogpt":
            return self.network(
                _planes_first(resized_to(clips, _I3D_SIDE) * (2 / 255) - 1),
                rescale=False,
                resize=False,
                return_features=True,
            )
        return self.network(_planes_first(clips.float()), rescale=True, resize=True, return_features=True)


class Classifier:
    """A classifier of clips: ``forward(x)`` to class probabilities or logits ``(B, K)``, for Inception Scores.

    StyleGAN-V's conversion of the C3D of UCF-101 (``c3d_ucf101.pt``) takes bytes at any size and gives probabilities.
    ``pixels`` says what others take: floats 0 to 255, 0 to 1, or -1 to 1. Rows that are not probabilities count as
    logits.
    """

    def __init__(
        self,
        path: Path,
        pixels: str = "bytes",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if pixels not in get_args(Pixels):
            raise InputError(f"--pixels is {pixels!r}{nearest(pixels, get_args(Pixels))}; use bytes, unit or signed")
        self.network = Scripted(path, device, dtype)
        self.name, self.weights = path.stem, self.network.weights
        self.preprocessing = f"pixels: {pixels}"
        self.published = False  # nobody has published the hash of one
        self._pixels = pixels
        self.outputs = ""

    def __call__(self, clips: Tensor) -> Tensor:
        """Clips uint8 ``(B, F, H, W, 3)`` to probabilities ``(B, K)``."""
        scaled = clips.float()
        if self._pixels != "bytes":
            scaled = scaled / 255 if self._pixels == "unit" else scaled * (2 / 255) - 1
        rows = self.network(_planes_first(scaled))
        sums = rows.double().sum(1)
        already = bool((rows >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
        outputs = "probabilities" if already else "logits"
        if self.outputs not in ("", outputs):
            raise InputError(f"{self.network.path} gives probabilities for some clips and other numbers for others")
        self.outputs = outputs
        return rows if already else rows.double().softmax(1).float()


class ScriptedInception:
    """Inception as TorchScript, ``forward(img, return_features)``: NVIDIA's ``inception-2015-12-05.pt``."""

    name, preprocessing = "inception", "the network's own, from bytes"

    def __init__(self, path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.network = Scripted(path, device, dtype)
        if "return_features" not in self.network.arguments:
            raise InputError(f"{path} takes no return_features; name an Inception of FID's, as .pth or TorchScript")
        self.weights, self.published = self.network.weights, bool(self.network.weights.published)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures uint8 ``(N, H, W, 3)`` to ``(N, D)``."""
        return self.network(pictures.permute(0, 3, 1, 2).float(), return_features=True)


def resized_to(clips: Tensor, side: int) -> Tensor:
    """Clips uint8 ``(B, F, H, W, 3)`` as floats 0 to 255 ``(B, F, side, side, 3)``, bilinear without antialiasing."""
    flat = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = functional.interpolate(flat, (side, side), mode="bilinear", align_corners=False)
    return small.permute(0, 2, 3, 1).unflatten(0, clips.shape[:2])


def _planes_first(clips: Tensor) -> Tensor:
    return clips.permute(0, 4, 1, 2, 3).contiguous()
