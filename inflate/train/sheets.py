"""Sample sheets: rows of pictures in one PNG, so that a run is looked at and not only its loss."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def write_rows(path: Path, rows: list[Tensor], scale: int = 1) -> None:
    """Write rows of pictures, each ``(count, 3, H, W)`` in [-1, 1], as one PNG enlarged by ``scale`` (nearest)."""
    lines = [torch.cat(list(row.float().clamp(-1, 1)), dim=-1) for row in rows]
    sheet = ((torch.cat(lines, dim=-2) + 1) * 127.5).round().byte().cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(sheet.transpose(1, 2, 0)))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)
