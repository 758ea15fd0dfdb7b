"""What a clip does from frame to frame: how alike neighbours are, how well flow explains them, how far they move.

Clips are uint8 ``(F, H, W, 3)`` of two frames or more; flow is OpenCV's DIS (arXiv:1603.03590), which needs no weights.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from inflate.data.optical_flow import move_along, optical_flow
from inflate.errors import InputError

FLOW = "OpenCV DIS, medium, frames enlarged to 128 px"
# Sundaram et al. 2010, eq. 5, as Ruder et al. (arXiv:1604.08610, eq. 6) have it.
_BOTH_WAYS, _BOTH_WAYS_LEAST = 0.01, 0.5


def frame_consistency(embeddings: Tensor) -> float:
    """Mean cosine of neighbouring frames' embeddings ``(F, D)``, unit vectors."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"frame consistency needs 2 frames or more, got embeddings {tuple(embeddings.shape)}")
    return float((embeddings[1:].double() * embeddings[:-1].double()).sum(1).mean())


def motion_magnitude(clip: np.ndarray) -> float:
    """Mean length of the flow between neighbouring frames, in shares of the frame's diagonal.

    Not in pixels, so that one clip moves as much at every size.
    """
    _check(clip)
    diagonal = float(np.hypot(*clip.shape[1:3]))
    lengths = [float(np.linalg.norm(optical_flow(a, b), axis=-1).mean()) for a, b in pairwise(clip)]
    return float(np.mean(lengths)) / diagonal


def warping_error(clip: np.ndarray) -> float:
    """Mean squared difference, pixels in [0, 1], of each frame to its neighbour moved along the flow onto it.

    Eqs. 5 and 6 of Lai et al. 2018 (arXiv:1808.00449): only places count that flow there and back leaves where they
    were, for what has been covered has nothing to be compared with. 0 for a clip without such places.
    """
    _check(clip)
    errors = []
    for first, second in pairwise(clip):
        there, back = optical_flow(first, second), optical_flow(second, first)
        returned = move_along(back, there)
        apart = np.square(there + returned).sum(-1)
        allowed = _BOTH_WAYS * (np.square(there).sum(-1) + np.square(returned).sum(-1)) + _BOTH_WAYS_LEAST
        seen = apart < allowed
        moved = move_along(second, there) / 255
        if seen.any():
            errors.append(float(np.square(moved - first / 255)[seen].mean()))
    return float(np.mean(errors)) if errors else 0.0


def clip_similarity(pictures: Tensor, text: Tensor) -> float:
    """CLIPSIM of one clip: the mean cosine of its frames' embeddings ``(F, D)`` to its text's ``(D,)``.

    Wu et al. 2021 (GODIVA, arXiv:2104.14806, section 4.1); a cosine, not a hundred times it.
    """
    return float((pictures.double() @ text.double()).mean())


def _check(clip: np.ndarray) -> None:
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or len(clip) < 2:
        raise InputError(f"a clip must be uint8 (F, H, W, 3) of 2 frames or more, got {clip.dtype} {clip.shape}")


def as_column(values: list[float]) -> Tensor:
    """One figure for each clip, as rows ``(N, 1)``."""
    return torch.tensor(values, dtype=torch.float64)[:, None]
