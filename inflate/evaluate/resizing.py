"""How frames are brought to one size before a feature network sees them; figures depend on it (arXiv:2104.11222)."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from inflate.data.decode import fit_square

Filter = Literal["lanczos", "bicubic", "bilinear", "area", "cd-fvd"]
FILTERS: tuple[str, ...] = get_args(Filter)


def square(frame: np.ndarray, size: int, resize: Filter) -> np.ndarray:
    """The centre square of a frame, uint8 (H, W, 3), at ``size`` pixels.

    ``lanczos`` is how the house reads data (whole-number reductions average boxes); ``bicubic``, ``bilinear`` and
    ``area`` crop first, with antialiasing and rounding; ``cd-fvd`` is what that package's loader does: the shorter side
    to ``size`` bilinearly with antialiasing, the centre cropped, and bytes by cutting off, not by rounding.
    """
    if resize == "lanczos":
        return np.asarray(fit_square(Image.fromarray(frame), size))
    if resize == "cd-fvd":
        return _as_cd_fvd(frame, size)
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = _planes(frame[top : top + side, left : left + side])
    if resize == "area":
        made = functional.interpolate(cut, (size, size), mode="area")
    else:
        made = functional.interpolate(cut, (size, size), mode=resize, antialias=True, align_corners=False)
    return _frame(made.clamp(0, 255).round())


def _as_cd_fvd(frame: np.ndarray, size: int) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = size / min(height, width)
    shape = (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)
    made = functional.interpolate(_planes(frame) / 255.0, shape, mode="bilinear", align_corners=False, antialias=True)
    top, left = (made.shape[2] - size) // 2, (made.shape[3] - size) // 2
    return _frame((made[:, :, top : top + size, left : left + size] * 255).floor())


def _planes(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None].float()


def _frame(planes: torch.Tensor) -> np.ndarray:
    return planes[0].to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
