"""What a super-resolution network is told, and how it is called.

The layout is Karlo's: the noisy picture and, concatenated after it, the low-resolution picture enlarged to the same
size by antialiased bicubic interpolation. Both may first be folded by p x p pixels into channels (pixel unshuffle), so
that a small network works on a small grid: ``in_channels = 2 * out_channels = 6 p^2``, p = 1 being Karlo's 6 channels.

Noise conditioning augmentation (Imagen Video, arXiv:2210.02303, section 2.5): Gaussian noise on the low-resolution
picture, its level being an input of the network, so that it does not trust what earlier stages made to the last pixel.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inflate.errors import InputError, nearest
from inflate.inflater import InflatedModel
from inflate.video import fold_frames, unfold_frames

SHRINKS = ("area", "bicubic")


def enlarge(pictures: Tensor, scale: int) -> Tensor:
    """(N, 3, h, w) -> (N, 3, scale h, scale w), bicubic with antialiasing as Karlo's; not clipped."""
    size = (pictures.shape[-2] * scale, pictures.shape[-1] * scale)
    return functional.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)


def shrink(pictures: Tensor, scale: int, method: str = "area") -> Tensor:
    """(N, 3, H, W) -> (N, 3, H / scale, W / scale), antialiased: the mean of each box, or bicubic clipped to [-1, 1].

    Raises:
        InputError: an unknown method, or a side that is no multiple of ``scale``.
    """
    height, width = pictures.shape[-2:]
    if method not in SHRINKS:
        raise InputError(f"Pictures cannot be shrunk by {method!r}{nearest(method, SHRINKS)}; use {SHRINKS}.")
    if height % scale or width % scale:
        raise InputError(f"Pictures of {height} x {width} px cannot be shrunk {scale} times; crop them first.")
    size = (height // scale, width // scale)
    if method == "area":
        return functional.interpolate(pictures, size, mode="area")
    return functional.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def augment(pictures: Tensor, noise: Tensor, level: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Noise in the variance-preserving form, ``sqrt(a) x + sqrt(1 - a) noise``; level 0 is none.

    Args:
        pictures: (N, 3, h, w).
        noise: standard normal of the same shape.
        level: (N,) whole numbers from 0 to T; level l is the schedule's timestep l - 1.
        alphas_cumprod: ``a`` of each timestep, (T,).
    """
    kept = torch.cat([torch.ones(1), alphas_cumprod.detach().cpu().float()])[level.cpu()].to(pictures.device)
    kept = kept[:, None, None, None]
    return kept.sqrt() * pictures + (1 - kept).sqrt() * noise


@dataclass(frozen=True)
class Layout:
    """What a network's config says about its input.

    ``patch`` p: pixels folded into channels in each direction; ``multiple``: sides of pictures must be multiples of
    it; ``levels``: how the network takes the noise level of the low-resolution picture: ``"timestep"`` (as a number),
    ``"table"`` (as an index below ``num_levels``), or None (not at all).
    """

    patch: int
    multiple: int
    levels: str | None
    num_levels: int = 0


def layout_of(network: Any) -> Layout:
    """The layout of a ``UNet2DModel``, or of an inflated one.

    Raises:
        InputError: channels that are not [noisy picture, low-resolution picture], or conditions nobody gives it.
    """
    config = network.config
    inputs, outputs = int(config.in_channels), int(config.out_channels)
    patch = math.isqrt(outputs // 3)
    if outputs != 3 * patch**2 or patch < 1 or inputs != 2 * outputs:
        raise InputError(
            f"A super-resolution network needs 6 p^2 input and 3 p^2 output channels (6 and 3, 24 and 12, 96 and 48), "
            f"the noisy picture and the enlarged one; this one has {inputs} and {outputs}."
        )
    multiple = patch * 2 ** (len(config.block_out_channels) - 1)
    kind = getattr(config, "class_embed_type", None)
    table = getattr(config, "num_class_embeds", None)
    if kind not in (None, "timestep"):
        raise InputError(
            f"This super-resolution network takes class_embed_type {kind!r}, of which a chain has nothing to tell; "
            "use one with 'timestep' (the noise level) or none."
        )
    if kind is None and table is not None:
        return Layout(patch, multiple, "table", int(table))
    return Layout(patch, multiple, kind)


def level_of(noise_level: float, layout: Layout, num_train_timesteps: int) -> int:
    """The level, 0 to the number of timesteps (or of the network's table), that a share from 0 to 1 of it means.

    Raises:
        InputError: more than 0 for a network that is not told the level.
    """
    if noise_level and layout.levels is None:
        raise InputError(
            f"noise_level is {noise_level:g}, but this super-resolution network has no input for it "
            "(class_embed_type 'timestep'); use 0."
        )
    highest = num_train_timesteps if layout.levels != "table" else layout.num_levels - 1
    return round(noise_level * highest)


def predict(
    network: Any,
    sample: Tensor,
    condition: Tensor,
    timestep: Tensor,
    level: Tensor | None = None,
    fps: float | Tensor | None = None,
) -> Tensor:
    """One evaluation of a network, the only place that knows how one is called.

    Args:
        network: a ``UNet2DModel``, which sees frame by frame, or an inflated one.
        sample: (B, 3, F, H, W), the noisy video; H and W multiples of the layout's.
        condition: the enlarged low-resolution video, of the same shape.
        timestep: one, or (B,).
        level: (B,) noise levels of the condition; None is no noise.
        fps: frames per second, for an inflated network with a frame-rate embedding.

    Returns:
        (B, 3, F, H, W) float32, in the scheduler's prediction type.
    """
    layout = layout_of(network)
    batch, _, frames = sample.shape[:3]
    folded = [functional.pixel_unshuffle(fold_frames(video), layout.patch) for video in (sample, condition)]
    inputs = torch.cat(folded, dim=1).to(network.dtype)
    labels = None
    if layout.levels is not None:
        labels = torch.zeros(batch) if level is None else level
        labels = labels.to(inputs.device, torch.long if layout.levels == "table" else torch.float32)
    image_model = network.image_model if isinstance(network, InflatedModel) else network
    with _level_in_own_dtype(image_model, layout):
        if isinstance(network, InflatedModel):
            told = fps if network.scheme.fps_range is not None else None
            options = {} if labels is None else {"class_labels": labels}
            made = fold_frames(network(unfold_frames(inputs, frames), timestep, fps=told, **options).sample)
        else:
            per_frame = timestep if timestep.numel() == 1 else timestep.repeat_interleave(frames)
            labels = None if labels is None else labels.repeat_interleave(frames)
            made = network(inputs, per_frame, class_labels=labels).sample
    return unfold_frames(functional.pixel_shuffle(made.float(), layout.patch), frames)


@contextmanager
def _level_in_own_dtype(image_model: Any, layout: Layout) -> Iterator[None]:
    """UNet2DModel hands the sinusoids of the level to its layer as float32, whatever that layer's dtype is."""
    if layout.levels != "timestep" or image_model.dtype == torch.float32:
        yield
        return
    dtype = image_model.dtype
    handle = image_model.class_embedding.register_forward_pre_hook(lambda module, args: (args[0].to(dtype),))
    try:
        yield
    finally:
        handle.remove()
