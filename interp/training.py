"""Training ↑F from D^t, and the frame decoder that mends what the autoencoder loses.

Both learn from clips without captions. ↑F: Make-A-Video, arXiv:2209.14792, section 3.3, v-prediction on latents with
some frames known. Frame decoder: true frames against what is decoded from latents like those that ↑F makes.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel, UNet2DModel
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from inflate.checkpoint import find_source, save
from inflate.checkpoint.fingerprint import architecture_fingerprint
from inflate.checkpoint.temporal import check_fits, read_temporal_info, read_temporal_tensors
from inflate.data import ClipSampler
from inflate.diffusion.weights import v_weight
from inflate.errors import InputError
from inflate.models.decoder import image_conditioning
from inflate.train.export import save_half
from inflate.train.pictures import open_data, to_model_range
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss
from inflate.train.steps.decoder import SCHEDULE, Encodings, NoiseSchedule, drop_conditions, noise_shares
from inflate.video import unfold_frames
from interp.conditioning import check_interpolates, join_condition, start_from_decoder
from interp.detail import Neighbours, decode_beside, encode_pictures, join_neighbours, neighbours_of
from interp.folder import load_interpolation, save_partial
from interp.frame_decoder import new_frame_decoder, patch_of, refine
from interp.masks import FAVOURED_SKIP, MIXTURE, check_mixture, draw_mask
from interp.sampling import interpolate_frames

LATENTS = ("model", "noisy")
_SHEET_STEPS = 4


@dataclass(frozen=True)
class InterpolationOptions:
    """``clip``, ``vae``, ``image_model``: folders; ``init``: the inflated folder of D^t (or of an interpolation model,
    to go on with it).

    ``trainable``: ``temporal`` or ``all``; ``masks``: shares of the kinds of masks (see ``interp.masks.MIXTURE``);
    ``curriculum_end``: how far the frame-rate curriculum goes; at 1 it ends with low rates, at 1/2 with all alike,
    while new frames between those of D^t mostly come at high ones. ``weighting``, ``gamma`` and ``timestep_power`` as
    in ``NoiseSchedule``. Number of frames, scheme and the noise that frames share are those of ``init``.
    """

    clip: str
    vae: str
    image_model: str
    init: str
    trainable: str = "temporal"
    masks: dict[str, Any] = field(default_factory=lambda: dict(MIXTURE))
    curriculum_end: float = 0.5
    condition_dropout: float = 0.1
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0

    def __post_init__(self) -> None:
        if self.trainable not in ("temporal", "all"):
            raise InputError(f"options.trainable is {self.trainable!r}; use 'temporal' or 'all'.")
        _check_curriculum(self.curriculum_end)
        check_mixture(self.masks)


@dataclass(frozen=True)
class FrameDecoderOptions:
    """``clip``, ``vae``: folders; ``model``: arguments of ``new_frame_decoder``, or ``init``: a folder to start from.

    ``latents``: where those of new frames come from. ``model``: what ↑F (folder ``interpolation``, with the image
    weights in ``image_model`` if it has none) says of the clean latents in one evaluation, at a random timestep.
    ``noisy``: true latents with noise of a random deviation up to ``latent_noise``. In both, a share ``blend_share`` is
    the encoding of the blend of the neighbours, as if nothing were known. ``frames_per_clip`` new frames of each clip
    are decoded; ``loss``: ``l1`` or ``l2``; ``curriculum_end`` as for ↑F.
    """

    clip: str
    vae: str
    latents: str = "noisy"
    interpolation: str = ""
    image_model: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    num_frames: int = 16
    masks: dict[str, Any] = field(default_factory=lambda: {**MIXTURE, "skip": 2.0})
    curriculum_end: float = 0.5
    frames_per_clip: int = 4
    latent_noise: float = 0.5
    blend_share: float = 0.1
    loss: str = "l1"

    def __post_init__(self) -> None:
        if self.latents not in LATENTS:
            raise InputError(f"options.latents is {self.latents!r}; use 'model' or 'noisy'.")
        if (self.latents == "model") != bool(self.interpolation):
            raise InputError("options.latents = 'model' and options.interpolation, ↑F's folder, go together.")
        if self.loss not in ("l1", "l2"):
            raise InputError(f"options.loss is {self.loss!r}; use 'l1' or 'l2'.")
        if self.frames_per_clip < 1:
            raise InputError(f"options.frames_per_clip is {self.frames_per_clip}; it must be at least 1.")
        if not 0 <= self.blend_share <= 1:
            raise InputError(f"options.blend_share is {self.blend_share}; it must lie between 0 and 1.")
        _check_curriculum(self.curriculum_end)
        check_mixture(self.masks)


def _check_curriculum(end: float) -> None:
    if not 0 < end <= 1:
        raise InputError(f"options.curriculum_end is {end}; it must be above 0 and at most 1.")


class _MaskedClips:
    """Clips with masks: a function of seed and update alone."""

    def __init__(
        self,
        recipe: Recipe,
        options: InterpolationOptions | FrameDecoderOptions,
        num_frames: int,
        device: torch.device,
    ) -> None:
        self.cache, self.num_frames = open_data(recipe.data), num_frames
        self.seed, self.masks = recipe.train.seed, options.masks
        total = round(recipe.train.steps / options.curriculum_end)
        self.sampler = ClipSampler(self.cache, num_frames, total, self.seed, split=recipe.data.split)
        self.encodings = Encodings(self.cache, options.clip, options.vae, device)

    def draw(self, update: int, first: int, batch_size: int) -> tuple[Batch, np.ndarray]:
        """Latents (B, c, F, h, w), middle-frame embeddings (B, D), frame rates (B,) and masks (B, F); frame rows."""
        draws = [self.sampler.sample(update, first + index) for index in range(batch_size)]
        rows = np.concatenate([draw.frame_indices for draw in draws])
        latents, embeds = self.encodings.of_rows(rows)
        middle = rearrange(embeds, "(b f) d -> b f d", f=self.num_frames)[:, self.num_frames // 2]
        known = [
            draw_mask(np.random.default_rng((self.seed, update, first + index, 2)), self.num_frames, self.masks)
            for index in range(batch_size)
        ]
        batch = {
            "latents": unfold_frames(latents, self.num_frames).contiguous(),
            "embeds": middle,
            "fps": torch.tensor([draw.fps for draw in draws], dtype=torch.float32),
            "known": torch.from_numpy(np.stack(known)),
        }
        return batch, rows

    def pixels(self, rows: np.ndarray) -> Tensor:
        """Clips (B, 3, F, S, S) in [-1, 1]."""
        return unfold_frames(to_model_range(self.cache.frames[rows]), self.num_frames)

    def sheet_rows(self, network: Any, frame_decoder: Any | None, device: torch.device) -> list[Tensor]:
        """For two clips: true frames, the known among them, and what becomes of the others; two with all but the first
        four of their last frames known."""
        skipped, ended = np.arange(self.num_frames) % FAVOURED_SKIP == 0, np.ones(self.num_frames, dtype=bool)
        skipped[-1], ended[-min(4, self.num_frames - 1) :] = True, False
        shown = np.linspace(0, self.num_frames - 1, min(16, self.num_frames)).round().astype(int)
        rows = []
        for number, mask in enumerate((skipped, ended)):
            batch, places = self.draw(0, 1_000_003 + number, 1)
            truth, known = self.pixels(places), torch.from_numpy(mask)
            made = interpolate_frames(
                network,
                self.encodings.vae,
                _solver(),
                truth.to(device),
                known,
                batch["embeds"].to(device),
                float(batch["fps"][0]),
                num_inference_steps=_SHEET_STEPS,
                guidance_scale=1.0,
                generator=torch.Generator().manual_seed(number),
                frame_decoder=frame_decoder,
            ).cpu()
            told = torch.where(known[None, None, :, None, None], truth, 0)
            rows += [video[0].transpose(0, 1)[shown] for video in (truth, told, made)]
        return rows


class InterpolationStep:
    """The TrainStep of ↑F."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(InterpolationOptions, recipe.options, "options")
        self.device = device
        self.schedule = NoiseSchedule(self.options.weighting, self.options.gamma, device, self.options.timestep_power)
        torch.manual_seed(recipe.train.seed)
        self.trained = self._network()
        self.clips = _MaskedClips(recipe, self.options, self.trained.num_frames, device)

    def _network(self) -> Any:
        image_model = UNet2DConditionModel.from_pretrained(
            self.options.image_model, local_files_only=True, torch_dtype=torch.float32
        )
        path = find_source(self.options.init).temporal_file
        info, _ = read_temporal_info(path)
        check_fits(info, path, image_model, architecture_fingerprint(image_model))
        model = start_from_decoder(image_model, info.scheme, info.num_frames, read_temporal_tensors(path))
        if self.options.trainable == "temporal":
            model.freeze_image_model()
        return model

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, F, h, w), middle-frame embeddings (B, D), frame rates (B,) and masks (B, F)."""
        return self.clips.draw(update, first, batch_size)[0]

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted v-loss over unknown frames; one timestep per clip.

        Not over known ones: at sampling these are set to the path from their noise to themselves, so what is predicted
        of them is never used, and copying them exactly through the network would take of its strength.
        """
        clean, known = batch["latents"].to(self.device), batch["known"].to(self.device)
        noisy, target, timestep = self.schedule.noised(clean, noise_shares(self.trained.scheme, batch["fps"]))
        embeds = drop_conditions(batch["embeds"].to(self.device), self.options.condition_dropout)
        inputs = join_condition(noisy, clean, known)
        fps = batch["fps"].to(self.device)
        predicted = self.trained(inputs, timestep, fps=fps, **image_conditioning(embeds)).sample
        unknown = (~known).float()
        error = (predicted.float() - target).square().mean(dim=(1, 3, 4))
        per_clip = (error * unknown).sum(1) / unknown.sum(1)
        weight = v_weight(self.schedule.snr[timestep], self.schedule.weighting, self.schedule.gamma)
        return StepLoss((per_clip * weight).mean())

    def sheet(self, path: Path) -> None:
        """For two clips: true frames, known frames, and the result; frames between, then frames after."""
        write_rows(path, self.clips.sheet_rows(self.trained, None, self.device))

    def export(self, folder: Path) -> None:
        """``interpolation_unet/``, float16: the temporal weights, and the image weights only if they were trained."""
        half, target = copy.deepcopy(self.trained).half(), folder / "interpolation_unet"
        if self.options.trainable == "all":
            save(half, target, force=True)
        else:
            save_partial(half, target, Path(self.options.image_model))


class FrameDecoderStep:
    """The TrainStep of the frame decoder."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(FrameDecoderOptions, recipe.options, "options")
        options, self.device, self.seed = self.options, device, recipe.train.seed
        self.interpolation: Any = None
        frames = options.num_frames
        if options.interpolation:
            self.interpolation = load_interpolation(options.interpolation, options.image_model or None)
            self.interpolation.to(device).requires_grad_(False)
            check_interpolates(self.interpolation)
            frames = self.interpolation.num_frames
        self.clips = _MaskedClips(recipe, options, frames, device)
        self.vae = self.clips.encodings.vae
        self.schedule = NoiseSchedule("v", 5.0, device)
        torch.manual_seed(recipe.train.seed)
        self.trained = self._network()
        patch_of(self.trained)

    def _network(self) -> Any:
        if self.options.init:
            return UNet2DModel.from_pretrained(self.options.init, local_files_only=True, torch_dtype=torch.float32)
        try:
            return new_frame_decoder(**self.options.model)
        except TypeError as error:
            raise InputError(f"options.model does not fit new_frame_decoder: {error}.") from error

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """As for ↑F, with ``pixels`` (B, 3, F, S, S) and the frames to decode, ``new``: a list of numbers per clip."""
        batch, rows = self.clips.draw(update, first, batch_size)
        chosen = []
        for index, known in enumerate(batch["known"].numpy()):
            rng, unknown = np.random.default_rng((self.seed, update, first + index, 3)), np.flatnonzero(~known)
            count = self.options.frames_per_clip
            chosen.append(np.sort(rng.choice(unknown, size=count, replace=count > len(unknown))))
        return batch | {"pixels": self.clips.pixels(rows), "new": torch.from_numpy(np.stack(chosen))}

    def __call__(self, batch: Batch) -> StepLoss:
        """L1 or L2 to the true frames; beside it PSNR of the corrected frames, and of the residual decode before."""
        truth = batch["pixels"].to(self.device)
        with torch.no_grad():
            around, target = self._neighbours(batch, truth)
            residual, plain = decode_beside(self.vae, self._latents(batch, around), around)
        made = refine(self.trained, residual, plain, around)
        distance = functional.l1_loss if self.options.loss == "l1" else functional.mse_loss
        parts = {"psnr": _psnr(made.detach(), target), "psnr_before": _psnr(residual, target)}
        return StepLoss(distance(made, target), parts)

    def _neighbours(self, batch: Batch, truth: Tensor) -> tuple[Neighbours, Tensor]:
        """Neighbours of the new frames of all clips, and the true frames (N, 3, S, S)."""
        around, targets = [], []
        for video, known, new in zip(truth, batch["known"], batch["new"].tolist(), strict=True):
            around.append(neighbours_of(video, known.nonzero().flatten().tolist(), new))
            targets.append(video[:, new].transpose(0, 1))
        return join_neighbours(around), torch.cat(targets)

    def _latents(self, batch: Batch, around: Neighbours) -> Tensor:
        """Latents (N, c, h, w) of the new frames, about as good as those that sampling makes."""
        clean = batch["latents"].to(self.device)
        if self.interpolation is not None:
            clips = self._one_step(clean, batch)
        else:
            level = self.options.latent_noise * torch.rand(len(clean), 1, 1, 1, 1, device=self.device)
            clips = clean + level * torch.randn_like(clean)
        made = torch.cat([clip[:, new].transpose(0, 1) for clip, new in zip(clips, batch["new"].tolist(), strict=True)])
        as_blend = torch.rand(len(made), device=self.device) < self.options.blend_share
        if bool(as_blend.any()):
            made[as_blend] = encode_pictures(self.vae, around.blend[as_blend])
        return made

    def _one_step(self, clean: Tensor, batch: Batch) -> Tensor:
        """What ↑F says of the clean latents at a random timestep: ``x = alpha z - sigma v``."""
        noisy, _, timestep = self.schedule.noised(clean, noise_shares(self.interpolation.scheme, batch["fps"]))
        predicted = self.interpolation(
            join_condition(noisy, clean, batch["known"].to(self.device)),
            timestep,
            fps=batch["fps"].to(self.device),
            **image_conditioning(batch["embeds"].to(self.device)),
        ).sample.float()
        kept = self.schedule.scheduler.alphas_cumprod.to(self.device)[timestep][:, None, None, None, None]
        return kept.sqrt() * noisy - (1 - kept).sqrt() * predicted

    def sheet(self, path: Path) -> None:
        """Rows of new frames: true, linear blend, residual decode, and with this network's correction."""
        batch = self.draw(0, 1_000_003, 4)
        torch.manual_seed(0)
        around, target = self._neighbours(batch, batch["pixels"].to(self.device))
        residual, plain = decode_beside(self.vae, self._latents(batch, around), around)
        made = refine(self.trained, residual, plain, around)
        write_rows(path, [part.cpu() for part in (target, around.blend, residual, made)])

    def export(self, folder: Path) -> None:
        """``frame_decoder/`` as diffusers writes it, float16."""
        save_half(self.trained, folder / "frame_decoder")


def _psnr(made: Tensor, true: Tensor) -> Tensor:
    """Mean PSNR of pictures in [-1, 1], capped at 60 dB."""
    error = (made.clamp(-1, 1) - true).square().mean(dim=(1, 2, 3)) / 4
    return (-10 * torch.log10(error.clamp_min(1e-6))).mean()


def _solver() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing")


def build_interpolation(recipe: Recipe, device: torch.device) -> InterpolationStep:
    """The step a recipe with ``step = "interpolation"`` trains."""
    return InterpolationStep(recipe, device)


def build_frame_decoder(recipe: Recipe, device: torch.device) -> FrameDecoderStep:
    """The step a recipe with ``step = "frame-decoder"`` trains."""
    return FrameDecoderStep(recipe, device)
