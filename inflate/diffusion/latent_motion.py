"""The latent motion of Text2Video-Zero (arXiv:2303.13439, section 3.3.1): frames that start from one picture, moved."""

import torch
import torch.nn.functional as F
from torch import Tensor


def translated_frames(latents: Tensor, num_frames: int, motion: tuple[float, float]) -> Tensor:
    """Frame k is the picture moved by ``k * motion``: latents (B, C, H, W) to (B, C, F, H, W).

    ``motion`` is (right, down) as a share of width and height per frame. Each cell takes the nearest one's value, since
    averages would take variance from the noise that latents hold, and beyond the border the picture is mirrored.
    """
    batch, _, height, width = latents.shape
    # In grid_sample's units the picture is 2 wide. A picture that moves right is read from further left.
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=latents.device, dtype=latents.dtype)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=latents.device, dtype=latents.dtype)
    frames = []
    for number in range(num_frames):
        rows, columns = torch.meshgrid(y - 2 * number * motion[1], x - 2 * number * motion[0], indexing="ij")
        grid = torch.stack([columns, rows], dim=-1).expand(batch, -1, -1, -1)
        frames.append(F.grid_sample(latents, grid, mode="nearest", padding_mode="reflection", align_corners=False))
    return torch.stack(frames, dim=2)


def renoised(sample: Tensor, alpha_bar: Tensor, target_alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """q(x_T | x_T') of a variance-preserving process (DDPM, arXiv:2006.11239, eq. 2), T being later than T'.

    ``alpha_bar`` at T' and ``target_alpha_bar`` at T, the smaller, are the squares of the signal's share.
    """
    kept = target_alpha_bar / alpha_bar
    return kept.sqrt() * sample + (1 - kept).sqrt() * noise
