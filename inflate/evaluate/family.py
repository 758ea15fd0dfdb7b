"""The measures on a whole family: a chain from text to video, its decoder and a data set of stills and clips."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inflate.errors import InputError
from inflate.evaluate.denoising import TIMESTEPS, ClipLatents, DenoisingReport, measure_denoising
from inflate.evaluate.features import PictureFeatures
from inflate.evaluate.motion import FRAME_RATES, MotionReport, measure_motion
from inflate.evaluate.retrieval import RetrievalReport, choose_names, measure_retrieval
from inflate.evaluate.things import Things, middle, to_unit_range
from inflate.inflater import InflatedModel
from inflate.video import fold_frames, unfold_frames


class GenerateClip(Protocol):
    """The family at work on one thing, prompted by its caption; makes ``(1, 3, F, H, W)`` in [0, 1]."""

    def __call__(self, name: str, num_frames: int, fps: float, seed: int) -> Tensor:
        """One clip of the thing called ``name`` in the data."""
        ...


@dataclass(frozen=True)
class DecoderParts:
    """What the denoising loss is measured on.

    Attributes:
        video_model: D^t, on its device.
        alphas_cumprod: ``alpha_bar`` of each training timestep, ``(T,)``.
        prediction_type: what the model predicts, as in diffusers' schedulers.
        encode_image: pixels ``(N, 3, S, S)`` in [-1, 1] to image embeddings ``(N, D)``.
        encode_pixels: the same pixels to latents ``(N, C, h, w)``; the identity in pixel space.
        conditioning: image embeddings ``(N, D)`` to the image model's own keyword arguments.
    """

    video_model: InflatedModel
    alphas_cumprod: Tensor
    prediction_type: str
    encode_image: Callable[[Tensor], Tensor]
    encode_pixels: Callable[[Tensor], Tensor]
    conditioning: Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class RetrievalResult:
    """The report, and the pictures behind it as uint8 ``(N, S, S, 3)`` in the order of its prompts."""

    report: RetrievalReport
    generated: np.ndarray
    stills: np.ndarray


def prompt_seed(seed: int, name: str) -> int:
    """The seed of one thing's clip: the same at every frame rate and whatever else is generated."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "little")


def evaluate_retrieval(
    generate: GenerateClip,
    things: Things,
    features: PictureFeatures,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
    split: str = "train",
    prompts: int = 100,
    seed: int = 0,
    top: int = 5,
    num_frames: int = 16,
    fps: float = 8.0,
    on_clip: Callable[[], None] | None = None,
) -> RetrievalResult:
    """Prompt with captions of ``split``; is the generated middle frame nearest to the prompted thing's still?

    The stills of all things, both splits, are the gallery. Two ceilings go through the same measure: the prompted
    stills through the autoencoder, and the middle frames of real clips (as many as there are prompts, at most).

    Args:
        generate: the family.
        things: the data, at the size that ``generate`` makes.
        features: pictures to features.
        reconstruct: pictures ``(N, 3, S, S)`` in [0, 1] through the family's autoencoder and back; None in pixel space.
        split: where the prompts are from.
        prompts: how many.
        seed: of the choice of prompts and of sampling.
        top: how near counts as found.
        num_frames: frames of a clip.
        fps: its frame rate.
        on_clip: called after each generated clip (progress).
    """
    chosen = choose_names(things.names(split), prompts, seed)
    made = []
    for name in chosen:
        clip = generate(name, num_frames, fps, prompt_seed(seed, name))
        made.append(clip[0, :, middle(num_frames)].float().cpu())
        if on_clip is not None:
            on_clip()
    generated = torch.stack(made)
    if generated.shape[-1] != things.cache.size:
        raise InputError(
            f"the model makes pictures of {generated.shape[-1]} px and the data was read at {things.cache.size} px; "
            "read it at the model's size"
        )
    names, stills = sorted(things.stills), things.still_frames(chosen)
    true = to_unit_range(stills)
    real = {"stills through the autoencoder": (reconstruct(true), chosen)} if reconstruct else {}
    real["middle frames of real clips"] = _real_middle_frames(things, split, prompts, seed, num_frames, fps)
    report = measure_retrieval(
        generated, chosen, things.stills_of(names), names, things.caption, features, real, split, seed, top
    )
    pixels = (generated.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return RetrievalResult(report, pixels, stills)


def _real_middle_frames(
    things: Things, split: str, count: int, seed: int, num_frames: int, fps: float
) -> tuple[Tensor, list[str]]:
    """Middle frames ``(N, 3, S, S)`` in [0, 1] of at most ``count`` real clips, with the names they show."""
    with_clip = [name for name in things.names(split, with_clip=True) if name in things.stills]
    if not with_clip:
        return torch.zeros(0, 3, things.cache.size, things.cache.size), []
    names = choose_names(with_clip, min(count, len(with_clip)), seed)
    frames = [things.clip_frames(name, fps, num_frames)[middle(num_frames)] for name in names]
    return to_unit_range(np.stack(frames)), names


def evaluate_motion(
    generate: GenerateClip,
    things: Things,
    split: str = "train",
    prompts: int = 32,
    seed: int = 0,
    num_frames: int = 16,
    frame_rates: Sequence[float] = FRAME_RATES,
    on_clip: Callable[[], None] | None = None,
) -> MotionReport:
    """Motion of generated against real clips of the same animated things, from the same seed at each frame rate."""
    chosen = choose_names(things.names(split, with_clip=True), prompts, seed)

    def generated_clip(name: str, fps: float) -> Tensor:
        return generate(name, num_frames, fps, prompt_seed(seed, name)).float().cpu()

    return measure_motion(
        chosen, generated_clip, lambda name, fps: things.clip_of(name, fps, num_frames), frame_rates, on_clip
    )


@torch.inference_mode()
def encode_clips(parts: DecoderParts, things: Things, names: Sequence[str], fps: float, num_frames: int) -> ClipLatents:
    """Latents and middle-frame embeddings of real clips, on the model's device."""
    device = parts.video_model.device
    latents, embeddings = [], []
    for name in names:
        pixels = to_unit_range(things.clip_frames(name, fps, num_frames)).to(device) * 2 - 1
        embeddings.append(parts.encode_image(pixels[middle(num_frames)][None])[0].float())
        latents.append(parts.encode_pixels(pixels).float().transpose(0, 1))
    return ClipLatents(torch.stack(latents), torch.stack(embeddings))


def evaluate_denoising(
    parts: DecoderParts,
    things: Things,
    split: str = "test",
    clips: int | None = None,
    seed: int = 0,
    num_frames: int = 16,
    frame_rates: Sequence[float] = FRAME_RATES,
    timesteps: Sequence[int] = TIMESTEPS,
    batch_size: int = 4,
    on_row: Callable[[], None] | None = None,
) -> DenoisingReport:
    """Denoising loss of D^t and of its image model frame by frame, on real clips of ``split`` (None: all of them)."""
    model = parts.video_model
    names = things.choose(split, clips, seed)

    def conditioning(embeddings: Tensor) -> dict[str, Tensor]:
        return {key: value.to(model.dtype) for key, value in parts.conditioning(embeddings).items()}

    def video(sample: Tensor, timestep: int, fps: float, embeddings: Tensor) -> Tensor:
        told = fps if model.scheme.fps_range is not None else None
        return model(sample.to(model.dtype), timestep, fps=told, **conditioning(embeddings)).sample

    def frame_by_frame(sample: Tensor, timestep: int, fps: float, embeddings: Tensor) -> Tensor:
        frames = sample.shape[2]
        told = conditioning(embeddings.repeat_interleave(frames, dim=0))
        return unfold_frames(model.image_model(fold_frames(sample).to(model.dtype), timestep, **told).sample, frames)

    return measure_denoising(
        video,
        frame_by_frame,
        {fps: encode_clips(parts, things, names, fps, num_frames) for fps in frame_rates},
        parts.alphas_cumprod,
        parts.prediction_type,
        timesteps,
        seed,
        batch_size,
        on_row,
        model.scheme.noise_share,
    )
