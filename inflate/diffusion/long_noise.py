"""First noise of videos longer than a model's own: FreeNoise's rescheduling (arXiv:2310.15169, section 3.2)."""

import torch
from torch import Tensor

from inflate.errors import InputError


def rescheduled_frames(num_frames: int, window: int, stride: int, generator: torch.Generator | None = None) -> Tensor:
    """Which of the noises of the first ``window`` frames each frame of a longer video takes, (num_frames,) int64.

    The first ``window`` frames have their own. After them each ``stride`` frames take the noises of the ``stride``
    frames that lie ``window`` before them, shuffled. Where ``stride`` divides ``window``, every window that begins at a
    multiple of it so holds each noise once: the model sees the same noises wherever it looks, in another order. A
    longer video begins with the same numbers.

    Raises:
        InputError: ``stride`` is not between 1 and ``window``.
    """
    if not 1 <= stride <= window:
        raise InputError(f"noise is shuffled within 1 to {window} frames (the window), not {stride}.")
    device = None if generator is None else generator.device
    taken = list(range(min(window, num_frames)))
    while len(taken) < num_frames:
        begin = len(taken) - window
        block = taken[begin : begin + stride]
        taken += [block[place] for place in torch.randperm(len(block), generator=generator, device=device).tolist()]
    return torch.tensor(taken[:num_frames])


def reschedule_noise(noise: Tensor, num_frames: int, stride: int, generator: torch.Generator | None = None) -> Tensor:
    """Noise of one window (B, C, F, H, W) -> of a video (B, C, num_frames, H, W), by :func:`rescheduled_frames`.

    Every frame's noise is standard normal as before; what two frames have in common is all or nothing.
    """
    frames = rescheduled_frames(num_frames, noise.shape[2], min(stride, noise.shape[2]), generator)
    return noise[:, :, frames.to(noise.device)]
