"""Training the frame decoder on clips without captions: true frames against what it makes of known ones around them.

What ↑F's latents say of a new frame is played by noisy latents of the true frame, so no network but the autoencoder is
needed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, UNet2DModel
from torch import Tensor

from inflate.data import ClipSampler
from inflate.errors import InputError
from inflate.train.choices import check_choices
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network, read_network
from inflate.train.pictures import open_clips, to_model_range
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss
from interp.detail import encode_pictures
from interp.frame_decoder import decode_trusted, new_frame_decoder, patch_of, refine, trust_at
from interp.masks import MIXTURE, check_mixture, draw_mask
from interp.neighbours import Neighbours, join_neighbours, neighbours_of, places
from interp.training.interpolation import check_curriculum

_FLOOR = 1e-5  # added to squared errors before the logarithm: a frame of 50 dB is good enough


@dataclass(frozen=True)
class FrameDecoderOptions:
    """``vae``: folder; ``model``: arguments of ``new_frame_decoder``, or ``init``: a folder to start from.

    Clips: ``num_frames`` at ``fps`` frames per second, or at the rates of the curriculum (up to ``curriculum_end``, see
    ``InterpolationOptions``) if that is 0; mirrored and played backwards at random if ``flip``; masked as ``masks``
    says. ``frames_per_clip`` of the masked frames are made.

    How far their latents may be trusted follows ``trust_at``, with a deviation of ``trust_spread`` where that is above
    0; they are the true ones with noise of up to ``latent_noise``, the more the less trusted, and are not looked at at
    trust 0. ``loss``: ``psnr`` (its negative, so that a still frame counts as much as a lively one) or ``l2``.
    """

    vae: str
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    num_frames: int = 16
    fps: float = 0.0
    curriculum_end: float = 0.5
    flip: bool = True
    masks: dict[str, Any] = field(default_factory=lambda: {**MIXTURE, "skip": 2.0})
    frames_per_clip: int = 4
    latent_noise: float = 0.5
    trust_spread: float = 0.15
    loss: str = "psnr"

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 <= self.fps <= 1000:
            raise InputError(f"options.fps is {self.fps}; it must lie between 0 (the curriculum's rates) and 1000.")
        check_curriculum(self.curriculum_end)
        check_mixture(self.masks)
        if not self.init:
            check_model(new_frame_decoder, self.model)


class FrameDecoderStep:
    """The TrainStep of the frame decoder."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(FrameDecoderOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.cache = open_clips(recipe.data)
        total = round(recipe.train.steps / self.options.curriculum_end)
        fps, split = self.options.fps or None, recipe.data.split
        self.sampler = ClipSampler(self.cache, self.options.num_frames, total, self.seed, fps, split)
        self.vae: Any = read_network(AutoencoderDC, self.options.vae, "vae")
        self.vae.to(device).eval().requires_grad_(False)
        torch.manual_seed(recipe.train.seed)
        self.trained = self._network()
        patch_of(self.trained.config)

    def _network(self) -> Any:
        if self.options.init:
            return read_network(UNet2DModel, self.options.init, "init")
        return new_network(new_frame_decoder, self.options.model)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Clips (B, 3, F, S, S), frame rates (B,), masks (B, F), and the frames to make, ``new``: (B, n) numbers."""
        clips, rates, masks, chosen = [], [], [], []
        for index in range(first, first + batch_size):
            drawn = self.sampler.sample(update, index)
            rng = np.random.default_rng((self.seed, update, index, 2))
            known = draw_mask(rng, self.options.num_frames, self.options.masks)
            unknown, count = np.flatnonzero(~known), self.options.frames_per_clip
            chosen.append(np.sort(rng.choice(unknown, size=count, replace=count > len(unknown))))
            clip = to_model_range(self.cache.frames[drawn.frame_indices]).transpose(0, 1)
            turned = [dim for dim in (1, 3) if self.options.flip and rng.random() < 0.5]
            clips.append(clip.flip(turned) if turned else clip)
            rates.append(drawn.fps)
            masks.append(known)
        return {
            "pixels": torch.stack(clips),
            "fps": torch.tensor(rates, dtype=torch.float32),
            "known": torch.from_numpy(np.stack(masks)),
            "new": torch.from_numpy(np.stack(chosen)),
        }

    def __call__(self, batch: Batch) -> StepLoss:
        """The distance to the true frames; beside it PSNR of the made frames, and of the blend of their neighbours."""
        with torch.no_grad():
            around, target, trust, residual, plain = self._told(batch)
        made = refine(self.trained, around, trust, residual, plain)
        error = (made - target).square().mean(dim=(1, 2, 3))
        loss = 10 * torch.log10(error / 4 + _FLOOR).mean() if self.options.loss == "psnr" else error.mean()
        return StepLoss(loss, {"psnr": _psnr(made.detach(), target), "psnr_before": _psnr(around.blend, target)})

    def _told(self, batch: Batch) -> tuple[Neighbours, Tensor, Tensor, Tensor, Tensor]:
        """Neighbours of the new frames of all clips, the true frames (N, 3, S, S), trust (N,), and both decodes."""
        around, targets, seconds = [], [], []
        for video, known, new, fps in zip(
            batch["pixels"].to(self.device), batch["known"], batch["new"].tolist(), batch["fps"].tolist(), strict=True
        ):
            told = known.nonzero().flatten().tolist()
            around.append(neighbours_of(video, told, new))
            targets.append(video[:, new].transpose(0, 1))
            seconds += [place.distance / fps for place in places(told, new)]
        joined, target = join_neighbours(around), torch.cat(targets)
        rule = trust_at(torch.tensor(seconds, device=self.device))
        trust = (rule + self.options.trust_spread * torch.randn_like(rule)).clamp(0, 1) * (rule > 0)
        return joined, target, trust, *decode_trusted(self.vae, self._latents(target, trust), joined, trust)

    def _latents(self, target: Tensor, trust: Tensor) -> Tensor:
        """Latents (N, c, h, w) of the true frames, the noisier the less they are to be trusted; zeros where not at all,
        since nobody looks at them."""
        chosen = trust > 0
        true = encode_pictures(self.vae, target[chosen] if bool(chosen.any()) else target[:1])
        latents = true.new_zeros(len(target), *true.shape[1:])
        if bool(chosen.any()):
            level = self.options.latent_noise * (1 - trust[chosen])[:, None, None, None]
            latents[chosen] = true + level * torch.randn_like(true)
        return latents

    def sheet(self, path: Path) -> None:
        """Rows of new frames: true, blend of the neighbours, residual decode, and what this network makes."""
        torch.manual_seed(0)
        with torch.no_grad():
            around, target, trust, residual, plain = self._told(self.draw(0, 1_000_003, 4))
            made = refine(self.trained, around, trust, residual, plain)
        write_rows(path, [part.cpu() for part in (target, around.blend, residual, made)])

    def export(self, folder: Path) -> None:
        """``frame_decoder/`` as diffusers writes it, float16."""
        save_half(self.trained, folder / "frame_decoder")


def _psnr(made: Tensor, true: Tensor) -> Tensor:
    """Mean PSNR of pictures in [-1, 1], capped at 60 dB."""
    error = (made.clamp(-1, 1) - true).square().mean(dim=(1, 2, 3)) / 4
    return (-10 * torch.log10(error.clamp_min(1e-6))).mean()


def build_frame_decoder(recipe: Recipe, device: torch.device) -> FrameDecoderStep:
    """The step a recipe with ``step = "frame-decoder"`` trains."""
    return FrameDecoderStep(recipe, device)
