"""Training ↑F from D^t on clips without captions: v-prediction on latents with some frames known (Make-A-Video,
arXiv:2209.14792, section 3.3).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from einops import rearrange
from torch import Tensor

from inflate.checkpoint import find_source, save
from inflate.checkpoint.fingerprint import architecture_fingerprint
from inflate.checkpoint.narrowing import narrow_copy
from inflate.checkpoint.temporal import check_fits, read_temporal_info, read_temporal_tensors
from inflate.data import ClipSampler
from inflate.errors import InputError
from inflate.train.choices import check_choices
from inflate.train.denoising import DenoisingStep, Problem, frame_noise
from inflate.train.networks import read_network
from inflate.train.noising import SCHEDULE, sampler_of
from inflate.train.pictures import open_clips, to_model_range
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch
from inflate.train.steps.decoder import Encodings, told
from inflate.video import unfold_frames
from interp.conditioning import join_condition, start_from_decoder
from interp.folder import save_partial
from interp.masks import FAVOURED_SKIP, MIXTURE, check_mixture, draw_mask
from interp.sampling import interpolate_frames

_SHEET_STEPS = 4


@dataclass(frozen=True)
class InterpolationOptions:
    """``clip``, ``vae``, ``image_model``: folders; ``init``: the inflated folder of D^t (or of an interpolation model,
    to go on with it).

    ``trainable``: ``temporal`` or ``all``; ``masks``: shares of the kinds of masks (see ``interp.masks.MIXTURE``);
    ``curriculum_end``: how far the frame-rate curriculum goes; at 1 it ends with low rates, at 1/2 with all alike,
    while new frames between those of D^t mostly come at high ones. ``weighting``, ``gamma`` and ``timestep_power`` as
    in ``DiffusionProcess``. Number of frames, scheme and the noise that frames share are those of ``init``.
    ``with_image_weights``: export these too, for a family whose ``unet`` has others.
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
    with_image_weights: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        check_curriculum(self.curriculum_end)
        check_mixture(self.masks)


def check_curriculum(end: float) -> None:
    """Raise ``InputError`` unless the frame-rate curriculum can end there."""
    if not 0 < end <= 1:
        raise InputError(f"options.curriculum_end is {end}; it must be above 0 and at most 1.")


class _MaskedClips:
    """Clips with masks: a function of seed and update alone."""

    def __init__(
        self,
        recipe: Recipe,
        options: InterpolationOptions,
        num_frames: int,
        device: torch.device,
    ) -> None:
        self.cache, self.num_frames = open_clips(recipe.data), num_frames
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

    def sheet_rows(self, network: Any, device: torch.device) -> list[Tensor]:
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
            ).cpu()
            told = torch.where(known[None, None, :, None, None], truth, 0)
            rows += [video[0].transpose(0, 1)[shown] for video in (truth, told, made)]
        return rows


class InterpolationStep(DenoisingStep):
    """The TrainStep of ↑F."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.options = parse_table(InterpolationOptions, recipe.options, "options")
        self.device = device
        options = self.options
        self.process = DiffusionProcess(
            SCHEDULE, weighting=options.weighting, gamma=options.gamma, power=options.timestep_power
        )
        self.condition_dropout = options.condition_dropout
        torch.manual_seed(recipe.train.seed)
        self.trained = self._network()
        self.clips = _MaskedClips(recipe, self.options, self.trained.num_frames, device)

    def _network(self) -> Any:
        image_model = read_network(UNet2DConditionModel, self.options.image_model, "image_model")
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

    def problem(self, batch: Batch) -> Problem:
        """Latents of clips; known frames are told as they are, and only the others count.

        The known ones do not: at sampling these are set to the path from their noise to themselves, so what is
        predicted of them is never used, and copying them exactly through the network would take of its strength.
        """
        clean, known = batch["latents"].to(self.device), batch["known"].to(self.device)
        fps, (given, zero) = {"fps": batch["fps"].to(self.device)}, told(batch["embeds"].to(self.device))
        noise = frame_noise(clean, self.trained.scheme, batch["fps"])

        def call(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
            return network(join_condition(noisy, clean, known), timestep, **conditions, **more).sample

        return Problem(clean, noise, call, given | fps, zero | fps, (~known).float()[:, None, :, None, None])

    def sheet(self, path: Path) -> None:
        """For two clips: true frames, known frames, and the result; frames between, then frames after."""
        write_rows(path, self.clips.sheet_rows(self.trained, self.device))

    def export(self, folder: Path) -> None:
        """``interpolation_unet/``, float16: the temporal weights, and the image weights if trained or asked for."""
        half, target = narrow_copy(self.trained, torch.float16), folder / "interpolation_unet"
        if self.options.trainable == "all" or self.options.with_image_weights:
            save(half, target, force=True)
        else:
            save_partial(half, target, Path(self.options.image_model))


def _solver() -> DPMSolverMultistepScheduler:
    return sampler_of(SCHEDULE)


def build_interpolation(recipe: Recipe, device: torch.device) -> InterpolationStep:
    """The step a recipe with ``step = "interpolation"`` trains."""
    return InterpolationStep(recipe, device)
