"""Numbers by closed forms, the same for the packages that are compared with and for our tests."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

VIDEOMAE = {
    "img_size": 224,
    "patch_size": 56,
    "num_classes": 3,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 1,
    "mlp_ratio": 1.5,
    "qkv_bias": True,
    "all_frames": 16,
    "tubelet_size": 2,
    "use_mean_pooling": True,
}


def wave(shape: tuple[int, ...], frequency: float) -> Tensor:
    """``sin(frequency * n + n² / 1000)`` for n = 0, 1, …; float64, for float32 loses n's last digits."""
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(frequency * n + n.square() / 1000).reshape(shape)


def features() -> tuple[Tensor, Tensor]:
    """Two sets float32 of 60 and 75 rows, 8 wide, the second spread wider and moved."""
    return wave((60, 8), 1.7).float(), (1.5 * wave((75, 8), 0.9) + 0.3).float()


def clips(count: int, frames: int, height: int, width: int) -> Tensor:
    """Clips uint8 ``(count, frames, height, width, 3)``."""
    return ((wave((count, frames, height, width, 3), 0.037) + 1) * 127.5).round().to(torch.uint8)


def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As many weights as ``state`` has, about as large as trained ones are."""
    made = {}
    for number, (name, value) in enumerate(sorted(state.items())):
        if not value.is_floating_point():
            made[name] = value.clone()
            continue
        noise = wave(tuple(value.shape), 0.61 + 0.01 * number)
        if value.ndim > 1:
            made[name] = (noise * (3 / value[0].numel()) ** 0.5).float()
        elif name.endswith(("running_var", "weight")):
            made[name] = (1 + 0.2 * noise).float()
        else:
            made[name] = (0.1 * noise).float()
    return made
