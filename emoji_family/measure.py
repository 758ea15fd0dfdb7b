"""Figures of emoji-sd: does it draw what a caption says, and do its autoencoder's pictures come back?"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inflate.evaluate.family import RetrievalResult, evaluate_retrieval
from inflate.evaluate.features import PictureFeatures
from inflate.evaluate.things import Things
from inflate.train.pictures import to_model_range


def draw(pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance_scale: float) -> Tensor:
    """One picture for each prompt, (N, 3, H, W) in [0, 1]; the same seed and prompt give the same picture."""
    made = pipeline(
        list(prompts),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pt",
    )
    return made.images.float().cpu()


def retrieval(
    pipeline: Any,
    things: Things,
    features: PictureFeatures,
    split: str = "train",
    prompts: int = 100,
    seed: int = 0,
    steps: int = 20,
    guidance_scale: float = 2.5,
    on_picture: Callable[[], None] | None = None,
) -> RetrievalResult:
    """Is the still nearest to each drawn picture that of the prompted thing? As ``inflate evaluate retrieval``.

    The same measure, names, seeds and gallery (stills of all things, both splits), for a picture in the place of a
    clip's middle frame.
    """

    def generate(name: str, num_frames: int, fps: float, seed: int) -> Tensor:
        return draw(pipeline, [things.caption(name)], [seed], steps, guidance_scale)[:, :, None]

    def reconstruct(pictures: Tensor) -> Tensor:
        return (round_trip(pipeline.vae, pictures * 2 - 1) + 1) / 2

    return evaluate_retrieval(
        generate, things, features, reconstruct, split, prompts, seed, num_frames=1, on_clip=on_picture
    )


@torch.no_grad()
def round_trip(vae: Any, pixels: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] through the autoencoder and back."""
    parts = [vae.decode(vae.encode(part.to(vae.dtype)).latent_dist.mode()).sample for part in pixels.split(32)]
    return torch.cat(parts).float().clamp(-1, 1)


def psnr(made: Tensor, true: Tensor) -> float:
    """Of pixels in [-1, 1], over all pictures together, in decibels."""
    error = (made.clamp(-1, 1).double() - true.double()).square().mean() / 4
    return float(-10 * torch.log10(error))


def reconstruction(vae: Any, things: Things, split: str = "test") -> float:
    """PSNR in decibels of the stills of a split."""
    pixels = to_model_range(things.still_frames(things.names(split)))
    return psnr(round_trip(vae, pixels), pixels)
