"""Frames that one token covers: putting them together before the image model, and what else a call gives for them."""

import torch
from torch import Tensor


def num_groups_of(num_frames: int, patch_frames: int) -> int:
    """Tokens in time: the last covers fewer frames where they do not divide."""
    return -(-num_frames // patch_frames)


def group_frames(frames: Tensor, num_frames: int, patch_frames: int) -> tuple[Tensor, Tensor]:
    """Folded frames (B*F, C, H, W) as their groups' means, (B*G, C, H, W), and the groups, (B*G, C, p, H, W).

    A last group that is not full is filled by repeating the last frame; so one frame is a group of equal frames.
    """
    videos = frames.unflatten(0, (-1, num_frames))
    missing = num_groups_of(num_frames, patch_frames) * patch_frames - num_frames
    if missing:
        videos = torch.cat([videos, videos[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
    groups = videos.flatten(0, 1).unflatten(0, (-1, patch_frames))
    return groups.mean(dim=1), groups.transpose(1, 2).contiguous()
