"""Sampling ↑F: known frames in, all frames out, the known ones untouched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inflate.diffusion.guidance import Guidance
from inflate.errors import InputError, a
from inflate.models.decoder import image_conditioning
from inflate.sampling.denoiser import Denoiser, guidance_inside
from inflate.sampling.loop import Generators, OnSample, denoise
from inflate.sampling.noise import frame_noise
from inflate.sampling.windows import Window, plan_windows
from inflate.video import fold_frames, unfold_frames
from interp.conditioning import check_interpolates, join_condition
from interp.detail import decode_beside, encode_pictures
from interp.frame_decoder import decode_trusted, refine_both_ways, trust_at
from interp.neighbours import join_neighbours, neighbours_of, places

_PREDICTIONS = ("v_prediction", "epsilon", "sample")


def spread_frames(frames: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """Room for new frames: ``skip - 1`` between each two, so 16 frames at skip 5 become 76, known at 0, 5, ..., 75.

    Args:
        frames: (B, 3, F, H, W).
        skip: how many times the frame rate is multiplied; 1 leaves the frames as they are.

    Returns:
        (B, 3, (F - 1) skip + 1, H, W), zeros where frames are to come, and the mask (frames,), True where known.
    """
    if frames.ndim != 5 or frames.shape[2] < 1:
        raise InputError(f"frames must be (batch, 3, frames, height, width), got shape {tuple(frames.shape)}.")
    if isinstance(skip, bool) or not isinstance(skip, int) or skip < 1:
        raise InputError(f"The frame skip must be a whole number of 1 or more, got {skip!r}.")
    count = (frames.shape[2] - 1) * skip + 1
    sparse = frames.new_zeros(*frames.shape[:2], count, *frames.shape[3:])
    sparse[:, :, ::skip] = frames
    return sparse, torch.arange(count) % skip == 0


def prediction_of_known(scheduler: Any, sample: Tensor, clean: Tensor, timestep: Tensor) -> Tensor:
    """What a network that knows the clean frame would predict for its noisy ``sample``, as the scheduler wants it.

    With ``z = alpha x + sigma eps``: ``v = alpha eps - sigma x = (alpha z - x) / sigma`` (arXiv:2202.00512, section 4).
    """
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return clean
    # At a fractional timestep any near alpha will do: the solver recovers x from its own alpha and z.
    number = torch.as_tensor(timestep).round().long().cpu()
    kept = scheduler.alphas_cumprod[number].to(sample.device, torch.float32)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    return (alpha * sample - clean) / sigma if kind == "v_prediction" else (sample - alpha * clean) / sigma


@dataclass(frozen=True)
class _Sampler:
    """What all windows of one call have in common."""

    model: Any
    scheduler: Any
    image_embeds: Tensor  # (B, D)
    fps: float
    num_inference_steps: int
    guidance_scale: float
    generator: Generators

    def denoiser(self, window: Window, known: Tensor, told: Tensor) -> Denoiser:
        """What a window's network predicts, beside the known frames (B, c, n, h, w) that it is told, (n,) bool."""
        embeds, guidance = self.image_embeds, Guidance(self.guidance_scale)
        inside = guidance_inside(self.model, guidance)
        both = guidance.needs_both and bool(embeds.any()) and not inside
        conditions = image_conditioning(torch.cat([torch.zeros_like(embeds), embeds]) if both else embeds)
        fps_range = self.model.scheme.fps_range
        # Rates beyond those of training are told as the nearest one: 8 frames a second times 5 is more than 30.
        rate = fps_range and min(max(self.fps / max(window.stride, 1.0), fps_range[0]), fps_range[1])
        return Denoiser(
            self.model,
            self.scheduler,
            conditions,
            guidance,
            both=both,
            fps=rate,
            inside=inside,
            beside=lambda sample: join_condition(sample, known, told),
        )

    def sample(self, window: Window, known: Tensor, noise: Tensor, on_step: Any) -> Tensor:
        """Latents (B, c, n, h, w) of a window's frames, from those that it is told and noise, both of that shape."""
        told = torch.tensor(window.known, device=noise.device)
        exact = told[None, None, :, None, None]
        denoiser = self.denoiser(window, known, told)

        def predict(sample: Tensor, timestep: Tensor) -> Tensor:
            # Known frames stay on the path from their noise to themselves, as in training, whatever is predicted.
            made = denoiser(sample, timestep)
            return torch.where(exact, prediction_of_known(self.scheduler, sample, known, timestep), made)

        return denoise(self.scheduler, predict, noise, self.num_inference_steps, self.generator, on_step)


@dataclass(frozen=True)
class _Canvas:
    """The videos of one call while their frames come to be, window by window."""

    sampler: _Sampler
    vae: Any | None
    frame_decoder: Any | None
    video: Tensor  # (B, 3, F, H, W) in [-1, 1], filled in place
    latents: Tensor  # (B, c, F, h, w), filled in place
    noise: Tensor  # of the latents' shape

    def fill(self, window: Window, on_step: OnSample | None) -> None:
        """Make a window's new frames."""
        frames, new = list(window.frames), list(window.new)
        trust = None if self.frame_decoder is None else _trust(window, self.sampler.fps).to(self.latents.device)
        sampled = trust is None or bool(trust.any())
        if sampled:
            made = self.sampler.sample(window, self.latents[:, :, frames], self.noise[:, :, frames], on_step)
            self.latents[:, :, new] = made[:, :, [frames.index(index) for index in new]]
        pictures = self.decode(window, trust)
        self.video[:, :, new] = pictures.to(self.video.device)
        if not sampled:
            # Later windows may be told these frames, and the caller hears of them as if they had been sampled.
            self.latents[:, :, new] = unfold_frames(encode_pictures(self.vae, fold_frames(pictures)), len(new))
            if on_step is not None:
                last = self.sampler.num_inference_steps - 1
                on_step(last, torch.zeros((), device=self.latents.device), self.latents[:, :, frames])

    def decode(self, window: Window, trust: Tensor | None) -> Tensor:
        """The new frames of a window, (B, 3, n, H, W) in [-1, 1]."""
        new = list(window.new)
        around = join_neighbours([neighbours_of(one.to(self.latents.device), _told(window), new) for one in self.video])
        z = fold_frames(self.latents[:, :, new])
        if self.frame_decoder is None or trust is None:
            made, _ = decode_beside(self.vae, z, around)
        else:
            trusted = trust.repeat(len(self.video))
            both = decode_trusted(self.vae, z, around, trusted)
            made = refine_both_ways(self.frame_decoder, around, trusted, *both)
        return unfold_frames(made.clamp(-1, 1), len(new))


def interpolate_frames(
    model: Any,
    vae: Any | None,
    scheduler: Any,
    known: Tensor,
    known_mask: Tensor,
    image_embeds: Tensor | None,
    fps: float,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    generator: Generators = None,
    on_step: OnSample | None = None,
    frame_decoder: Any | None = None,
    draw: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Make the unknown frames of videos, between known ones, before or after them.

    Args:
        model: an interpolation model: an ``InflatedModel`` that takes known frames and a mask.
        vae: a diffusers ``AutoencoderDC`` or ``AutoencoderKL``; None where the model works on pixels.
        scheduler: any diffusers scheduler of the model's prediction type with ``alphas_cumprod``.
        known: (B, 3, F, H, W) in [-1, 1]; what unknown frames hold does not matter.
        known_mask: (F,) bool, the same for all videos.
        image_embeds: CLIP image embeddings (B, D); None is no condition, zeros.
        fps: frames per second of the F frames.
        num_inference_steps: steps of the scheduler, per window.
        guidance_scale: as in ``sample_latents``.
        generator: one, or one per video.
        on_step: called with (step, timestep, the window's latents); ``step`` rises from 0 to ``num_inference_steps`` -
            1 over all windows. What it returns replaces the latents.
        frame_decoder: see ``interp.frame_decoder``; None leaves the residual decode as it is. A window of which it
            trusts no latents, all new frames being near known ones, is not sampled: ``on_step`` is called once.
        draw: called for the first noise with ``frames`` and ``picture`` as of ``frame_noise``, which is the default.

    Returns:
        (B, 3, F, H, W), float32; known frames as they were given, bit for bit.

    Raises:
        InputError: shapes that do not fit, no known frame, or not an interpolation model.
    """
    mask = _check(model, scheduler, known, known_mask)
    windows = plan_windows(mask.tolist(), model.num_frames)
    result = known.detach().float().clone()
    if not windows:
        return result
    embeds = _embeds(model, image_embeds, len(known))
    sampler = _Sampler(model, scheduler, embeds, fps, num_inference_steps, guidance_scale, generator)
    with torch.no_grad():
        given = encode_pictures(vae, fold_frames(result[:, :, mask].to(model.device)))
        latents = given.new_zeros(len(known), given.shape[1], len(mask), *given.shape[-2:])
        latents[:, :, mask] = unfold_frames(given, int(mask.sum()))
        noise = draw or partial(frame_noise, model, len(known), generator=generator, device=latents.device, fps=fps)
        noise = noise(frames=len(mask), picture=(latents.shape[1], *latents.shape[3:]))
        canvas = _Canvas(sampler, vae, frame_decoder, result, latents, noise)
        for number, window in enumerate(windows):
            scaled = None if on_step is None else _scaled(on_step, number, len(windows), num_inference_steps)
            canvas.fill(window, scaled)
    return result


def _trust(window: Window, fps: float) -> Tensor:
    """How far to trust ↑F's latents of the new frames of a window, (n,)."""
    found = places(_told(window), window.new)
    return trust_at(torch.tensor([place.distance for place in found], dtype=torch.float32) / fps)


def _told(window: Window) -> list[int]:
    return [index for index, is_known in zip(window.frames, window.known, strict=True) if is_known]


def _scaled(on_step: OnSample, number: int, windows: int, steps: int) -> OnSample:
    return lambda step, timestep, sample: on_step((number * steps + step) // windows, timestep, sample)


def _check(model: Any, scheduler: Any, known: Tensor, known_mask: Tensor) -> Tensor:
    """The mask on the CPU."""
    check_interpolates(model)
    if known.ndim != 5 or known.shape[1] != 3:
        raise InputError(f"Known frames must be (batch, 3, frames, height, width), got {tuple(known.shape)}.")
    mask = torch.as_tensor(known_mask)
    if mask.dtype != torch.bool or mask.shape != (known.shape[2],):
        raise InputError(
            f"The mask must hold one bool for each of {known.shape[2]} frames, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    kind = scheduler.config.get("prediction_type")
    if kind not in _PREDICTIONS or not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(
            f"Frame interpolation cannot use {a(type(scheduler).__name__)} that predicts {kind!r}; "
            f"use one with alphas_cumprod that predicts one of {', '.join(_PREDICTIONS)}."
        )
    return mask.cpu()


def _embeds(model: Any, image_embeds: Tensor | None, batch: int) -> Tensor:
    """Embeddings (B, D) on the model's device."""
    width = model.config.get("projection_class_embeddings_input_dim") or model.config.get("cross_attention_dim")
    if image_embeds is None:
        return torch.zeros(batch, int(width), device=model.device)
    if image_embeds.shape != (batch, width):
        raise InputError(
            f"This frame interpolation model takes image embeddings ({batch}, {width}), got "
            f"{tuple(image_embeds.shape)}; all stages must belong to the same family."
        )
    return image_embeds.to(model.device)
