"""The denoising loss of a video model beside that of its image model frame by frame, at fixed noise and timesteps.

Clips are latents ``(N, C, F, h, w)`` of the model's autoencoder; both models see the same noisy latents, the same
timestep and the same condition (the image embedding of the clip's middle frame, for every frame).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError, nearest

TIMESTEPS = (50, 150, 250, 350, 450, 550, 650, 750, 850, 950)
PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")

Predict = Callable[[Tensor, int, float, Tensor], Tensor]
"""``(noisy latents (B, C, F, h, w), timestep, fps, image embeddings (B, D))`` to a prediction of the same shape."""


@dataclass(frozen=True)
class ClipLatents:
    """Clips at one frame rate: ``latents (N, C, F, h, w)`` and the middle frames' image ``embeddings (N, D)``."""

    latents: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class DenoisingRow:
    """Mean squared errors at one frame rate and timestep, over all clips, frames and channels.

    ``clips_better`` is the share of clips on which the video model's error is the lower one.
    """

    fps: float
    timestep: int
    image_model: float
    video_model: float
    clips_better: float


@dataclass(frozen=True)
class DenoisingReport:
    """Every row, with what they were measured on."""

    rows: tuple[DenoisingRow, ...]
    prediction_type: str
    clips: int
    num_frames: int
    seed: int

    def by_timestep(self) -> dict[int, tuple[float, float]]:
        """Timestep to (image model, video model), each the mean over the frame rates."""
        table = {}
        for timestep in sorted({row.timestep for row in self.rows}):
            rows = [row for row in self.rows if row.timestep == timestep]
            image = sum(row.image_model for row in rows) / len(rows)
            table[timestep] = (image, sum(row.video_model for row in rows) / len(rows))
        return table

    @property
    def better_at_every_timestep(self) -> bool:
        """The video model's error, mean over frame rates, lies below the image model's at every timestep."""
        return all(video < image for image, video in self.by_timestep().values())

    @property
    def better_in_every_row(self) -> bool:
        """The same for each frame rate by itself."""
        return all(row.video_model < row.image_model for row in self.rows)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            **asdict(self),
            "by_timestep": {
                str(timestep): {"image_model": image, "video_model": video}
                for timestep, (image, video) in self.by_timestep().items()
            },
            "better_at_every_timestep": self.better_at_every_timestep,
            "better_in_every_row": self.better_in_every_row,
        }


def noisy_latents(latents: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """``z = alpha x + sigma eps`` with ``alpha² = alpha_bar``, ``sigma² = 1 - alpha_bar`` (DDPM eq. 4)."""
    return alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise


def training_target(latents: Tensor, noise: Tensor, alpha_bar: float, prediction_type: str) -> Tensor:
    """What the model should answer: eps, x, or ``v = alpha eps - sigma x`` (Salimans and Ho 2022, appendix D)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latents
    if prediction_type == "v_prediction":
        return alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * latents
    raise InputError(
        f"unknown prediction type {prediction_type!r}{nearest(prediction_type, PREDICTION_TYPES)}; "
        f"known: {', '.join(PREDICTION_TYPES)}"
    )


def fixed_noise(shape: Sequence[int], seed: int, timestep: int, shared_noise: float = 0.0) -> Tensor:
    """Standard normal noise ``shape`` that depends on its arguments only, on any device and at any batch size.

    With ``shared_noise`` the shape is (B, C, F, H, W) and frames correlate by that much, as the model was trained.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + timestep)
    own = torch.randn(tuple(shape), generator=generator)
    if not shared_noise:
        return own
    batch, channels, _, height, width = shape
    return mix_noise(own, torch.randn((batch, channels, 1, height, width), generator=generator), shared_noise)


@torch.inference_mode()
def denoising_errors(
    predict: Predict,
    clips: ClipLatents,
    fps: float,
    timestep: int,
    alphas_cumprod: Tensor,
    prediction_type: str = "v_prediction",
    seed: int = 0,
    batch_size: int = 4,
    shared_noise: float = 0.0,
) -> Tensor:
    """Mean squared error of ``predict`` on each clip at one timestep: ``(N,)`` float64 on the CPU.

    Args:
        predict: the model under test.
        clips: latents and embeddings of N clips, on the model's device.
        fps: their frame rate, handed to the model.
        timestep: index into ``alphas_cumprod``.
        alphas_cumprod: ``alpha_bar`` of each training timestep, ``(T,)``.
        prediction_type: what the model predicts, as in diffusers' schedulers.
        seed: seed of the noise.
        batch_size: clips in one call; the errors do not depend on it but for rounding.
        shared_noise: correlation of the frames' noise.
    """
    if not 0 <= timestep < len(alphas_cumprod):
        raise InputError(f"timestep {timestep} lies outside the schedule's 0 to {len(alphas_cumprod) - 1}")
    alpha_bar = float(alphas_cumprod[timestep])
    noise = fixed_noise(clips.latents.shape, seed, timestep, shared_noise)
    errors = []
    for start in range(0, len(clips.latents), batch_size):
        latents = clips.latents[start : start + batch_size]
        eps = noise[start : start + batch_size].to(latents)
        target = training_target(latents, eps, alpha_bar, prediction_type)
        embeddings = clips.embeddings[start : start + batch_size]
        prediction = predict(noisy_latents(latents, eps, alpha_bar), timestep, fps, embeddings)
        errors.append((prediction.double() - target.double()).square().flatten(1).mean(dim=1).cpu())
    return torch.cat(errors)


def measure_denoising(
    video_model: Predict,
    image_model: Predict,
    clips_by_fps: Mapping[float, ClipLatents],
    alphas_cumprod: Tensor,
    prediction_type: str = "v_prediction",
    timesteps: Sequence[int] = TIMESTEPS,
    seed: int = 0,
    batch_size: int = 4,
    on_row: Callable[[], None] | None = None,
    shared_noise: Callable[[float], float] | None = None,
) -> DenoisingReport:
    """Both models' errors at each frame rate and timestep.

    Args:
        video_model: predicts with its temporal layers.
        image_model: predicts frame by frame.
        clips_by_fps: clips at each frame rate.
        alphas_cumprod: ``alpha_bar`` of each training timestep.
        prediction_type: what both predict.
        timesteps: noise levels, as indices into ``alphas_cumprod``.
        seed: seed of the noise.
        batch_size: clips in one call.
        on_row: called after each row (progress).
        shared_noise: correlation of the frames' noise at a frame rate, the same for both models; None is 0.
    """
    if not clips_by_fps or any(len(clips.latents) == 0 for clips in clips_by_fps.values()):
        raise InputError("there is no clip to measure the denoising loss on")
    rows = []
    for fps, clips in sorted(clips_by_fps.items()):
        share = 0.0 if shared_noise is None else shared_noise(fps)
        for timestep in timesteps:
            image, video = (
                denoising_errors(model, clips, fps, timestep, alphas_cumprod, prediction_type, seed, batch_size, share)
                for model in (image_model, video_model)
            )
            better = float((video < image).double().mean())
            rows.append(DenoisingRow(fps, timestep, float(image.mean()), float(video.mean()), better))
            if on_row is not None:
                on_row()
    first = next(iter(clips_by_fps.values())).latents
    return DenoisingReport(tuple(rows), prediction_type, len(first), first.shape[2], seed)


def markdown_table(report: DenoisingReport) -> str:
    """The report as a markdown table: a row per timestep, the means over frame rates, then each frame rate's ratio."""
    rates = sorted({row.fps for row in report.rows})
    ratio = {(row.fps, row.timestep): row.video_model / row.image_model for row in report.rows}
    head = ["t", "image model", "video model", "video / image", *(f"at {fps:g} fps" for fps in rates)]
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for timestep, (image, video) in report.by_timestep().items():
        cells = [f"{timestep}", f"{image:.5f}", f"{video:.5f}", f"{video / image:.3f}"]
        cells += [f"{ratio[fps, timestep]:.3f}" for fps in rates]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
