"""What a video is here, and how its frames are folded into the batch and taken out again.

Shape legend, used in the whole package: B batch, C channels, F frames, H height, W width, N = H * W tokens, D width of
a token, T text tokens. At every public edge a video tensor is ``(B, C, F, H, W)``, with pixels in [-1, 1] for models.
Inside an image model the same video is ``(B * F, C, H, W)``, the frames of one video next to each other.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from inflate.errors import InputError


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames and the rate at which they are shown; sound and uneven times are no part of it.

    A file's own times are ``inflate.data.frame_times(path)``, its sound ``inflate.data.sound.Sound(path, origin)``;
    ``inflate.data.writing.write_video`` takes both for what an application has made of it, as the commands do.

    ``frames`` is ``(F, H, W, 3)``, uint8, RGB, with at least one frame; ``fps`` is in frames per second, above zero.
    Raises ``InputError`` where they are not. Two videos are equal only if they are the same object.
    """

    frames: np.ndarray
    fps: float

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise InputError(
                f"a video's frames must be uint8 of shape (frames, height, width, 3), "
                f"got {self.frames.dtype} of shape {self.frames.shape}"
            )
        if 0 in self.frames.shape:
            raise InputError(f"a video needs at least one frame with pixels in it, got shape {self.frames.shape}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps must be a number of frames per second above 0, got {self.fps}")

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.frames.shape[2]

    @property
    def duration_seconds(self) -> float:
        """How long the frames are shown in all, the last one as long as the others."""
        return self.num_frames / self.fps


def check_num_frames(batch_size: int, num_frames: int) -> None:
    """Raise ``InputError`` unless ``batch_size`` folded pictures are whole videos of ``num_frames`` frames."""
    if num_frames < 1 or batch_size % num_frames:
        raise InputError(
            f"a batch of {batch_size} pictures is not whole videos of {num_frames} frames: "
            f"fold every frame of every video into the batch, or pass the right num_frames"
        )


def fold_frames(video: Tensor) -> Tensor:
    """``(B, C, F, H, W)`` to ``(B * F, C, H, W)``, the layout an image model takes; frames vary fastest."""
    if video.ndim != 5:
        raise InputError(f"a video must be (batch, channels, frames, height, width), got shape {tuple(video.shape)}")
    return rearrange(video, "b c f h w -> (b f) c h w")


def unfold_frames(pictures: Tensor, num_frames: int) -> Tensor:
    """``(B * F, C, H, W)`` back to ``(B, C, F, H, W)``; the inverse of ``fold_frames``."""
    if pictures.ndim != 4:
        raise InputError(
            f"folded frames must be (batch * frames, channels, height, width), got shape {tuple(pictures.shape)}"
        )
    check_num_frames(pictures.shape[0], num_frames)
    return rearrange(pictures, "(b f) c h w -> b c f h w", f=num_frames)


def to_uint8(video: Tensor) -> np.ndarray:
    """``(B, 3, F, H, W)`` in [-1, 1] to uint8 ``(B, F, H, W, 3)``; values outside are clipped.

    Raises ``InputError`` for another shape and for values that are not numbers.
    """
    if video.ndim != 5 or video.shape[1] != 3:
        raise InputError(f"a video of pixels must be (batch, 3, frames, height, width), got {tuple(video.shape)}")
    pixels = video.detach().to("cpu", torch.float32)
    if torch.isnan(pixels).any():
        raise InputError(
            "the video holds values that are not numbers (NaN): a wider dtype such as float32 may help; if it is "
            "float32 that ran, the model's weights hold NaN themselves, and the model is to be got or trained again"
        )
    # In place: a frame may be of a hundred megabytes.
    levels = pixels.clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
    return rearrange(levels, "b c f h w -> b f h w c").numpy()


def from_uint8(frames: np.ndarray) -> Tensor:
    """uint8 ``(B, F, H, W, 3)`` to float32 ``(B, 3, F, H, W)`` in [-1, 1]; ``to_uint8`` gives the same bytes back."""
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise InputError(
            f"frames must be uint8 of shape (batch, frames, height, width, 3), "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    levels = torch.from_numpy(np.ascontiguousarray(rearrange(frames, "b f h w c -> b c f h w")))
    return levels.to(torch.float32) / 127.5 - 1
