"""Training the super-resolution networks: on pictures from nothing, then, inflated, on clips.

Low-resolution pictures are made from the true ones: shrunk, and for SR_l^t some of them passed through the family's
autoencoder, since the frames that reach it in the chain come from there. SR_h is trained on pairs of 128 and 256 px and
on crops of them, because there is no data of 512 px, and then enlarges 256 px to 512: by then an edge is an edge.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

from inflate.checkpoint import load, save
from inflate.checkpoint.narrowing import narrow_copy
from inflate.data import ClipSampler, FrameCache
from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError
from inflate.inflater import inflate, resolve_scheme
from inflate.models.decoder import decode_latents, encode_pixels
from inflate.stages import StageSettings
from inflate.train.choices import check_choices
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.export import save_half
from inflate.train.networks import check_model, new_network, read_network
from inflate.train.noising import SCHEDULE, sampler_of
from inflate.train.pictures import PictureSampler, open_clips, open_data, to_model_range, write_json
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import DataOptions, Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch
from inflate.video import fold_frames, unfold_frames
from superres.conditioning import SHRINKS, augment, enlarge, layout_of, predict, shrink
from superres.spatial import SpatialConfig, SpatialStage
from superres.spatiotemporal import SpatiotemporalConfig, SpatiotemporalStage

_SHEET_SETTINGS = StageSettings(num_inference_steps=4)


@dataclass(frozen=True)
class SuperResolutionOptions:
    """Options of both steps.

    Pairs: ``scale`` and ``residual_std`` as in ``SuperResolutionConfig``; ``shrink``: how low resolution is made
    (``area`` as frame caches are made, or ``bicubic``); ``crop``: side in pixels of random cuts of the large picture, 0
    for all of it; ``max_noise_level``: noise on the low-resolution picture goes from 0 to this share of all timesteps,
    for a share ``noisy_share`` of the pictures (or clips), the others having none;
    ``vae``: folder of an autoencoder that a share ``vae_share`` of the low-resolution pictures (or clips) passes
    through, with noise of deviation ``vae_noise`` on its latents.

    Image step: ``model``: UNet2DModel's arguments (``"none"`` for None, which TOML lacks), or ``init``: a folder to
    start from. Video step: ``image_model``: a folder, ``init``: an inflated folder to take temporal weights from,
    ``scheme``, ``num_frames``, ``shared_noise`` (correlation of frames' noise) and ``trainable`` (``temporal`` or
    ``all``).

    Loss: ``weighting``, ``gamma`` and ``timestep_power`` as in ``DiffusionProcess``.
    """

    scale: int = 4
    residual_std: float = 0.0
    shrink: str = "area"
    crop: int = 0
    flip: bool = True
    max_noise_level: float = 0.0
    noisy_share: float = 1.0
    vae: str = ""
    vae_share: float = 0.0
    vae_noise: float = 0.0
    model: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    image_model: str = ""
    scheme: str = "imagen-video-sr"
    num_frames: int = 8
    shared_noise: float = 0.0
    trainable: str = "temporal"
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0

    def __post_init__(self) -> None:
        SpatialConfig(self.scale, self.residual_std)
        if self.shrink not in SHRINKS:
            raise InputError(f"options.shrink is {self.shrink!r}; use {' or '.join(map(repr, SHRINKS))}.")
        if self.vae_share and not self.vae:
            raise InputError("options.vae_share needs options.vae, the folder of an autoencoder.")
        check_choices(self)
        if not self.init and not self.image_model:
            check_model(UNet2DModel, self.model_arguments())

    def model_arguments(self) -> dict[str, Any]:
        """``model`` with None where it says ``"none"``."""
        return {name: None if value == "none" else value for name, value in self.model.items()}


@dataclass(frozen=True)
class Pair:
    """What one update sees, all (B, 3, F, S, S) but ``level`` (B,): the enlarged low resolution as it is (``base``)
    and as the network is told it (``told``, with noise of ``level``)."""

    truth: Tensor
    base: Tensor
    told: Tensor
    level: Tensor


class PairMaker:
    """Makes low resolution out of true pictures; random numbers come from torch's global generator."""

    def __init__(self, options: SuperResolutionOptions, network: Any, size: int, device: torch.device) -> None:
        self.options = options
        layout = layout_of(network)
        if options.max_noise_level and layout.levels != "timestep":
            raise InputError(
                "options.max_noise_level is above 0, but the network has no input for the level; "
                "give it class_embed_type = 'timestep'."
            )
        side = options.crop or size
        if side > size or side % layout.multiple or size % options.scale:
            raise InputError(
                f"Pictures of {size} px and cuts of {side} px do not fit: a cut must be a multiple of "
                f"{layout.multiple} px and no larger than the picture, which must be a multiple of {options.scale} px."
            )
        self.size, self.side = size, side
        self.vae: Any = None
        if options.vae:
            self.vae = read_network(AutoencoderDC, options.vae, "vae")
            self.vae.to(device).eval().requires_grad_(False)

    def corners(self, count: int, rng: np.random.Generator) -> Tensor:
        """Top and left of a cut per item, (count, 2)."""
        return torch.from_numpy(rng.integers(0, self.size - self.side + 1, size=(count, 2)))

    @torch.no_grad()
    def low(self, truth: Tensor, vae_share: float) -> Tensor:
        """(B, 3, F, S, S) -> (B, 3, F, S / scale, S / scale); ``vae_share`` of the items through the autoencoder."""
        low = unfold_frames(shrink(fold_frames(truth), self.options.scale, self.options.shrink), truth.shape[2])
        chosen = torch.rand(len(low), device=low.device) < vae_share
        if self.vae is not None and bool(chosen.any()):
            latents = encode_pixels(self.vae, fold_frames(low[chosen]))
            latents = latents + self.options.vae_noise * torch.randn_like(latents)
            low[chosen] = unfold_frames(decode_latents(self.vae, latents), low.shape[2])
        return low

    @torch.no_grad()
    def __call__(self, truth: Tensor, corners: Tensor, alphas_cumprod: Tensor) -> Pair:
        """Pairs of cuts; the low resolution is that of the whole picture, so that cuts have no edges of their own."""
        frames, scale = truth.shape[2], self.options.scale
        low = self.low(truth, self.options.vae_share)
        levels = len(alphas_cumprod) * self.options.max_noise_level
        level = (torch.rand(len(truth), device=truth.device) * levels).round().long()
        level[torch.rand(len(truth), device=truth.device) >= self.options.noisy_share] = 0
        base = unfold_frames(enlarge(fold_frames(low), scale), frames)
        told = base
        if levels:
            small = fold_frames(low)
            noisy = augment(small, torch.randn_like(small), level.repeat_interleave(frames), alphas_cumprod)
            told = unfold_frames(enlarge(noisy, scale), frames)
        return Pair(self._cut(truth, corners), self._cut(base, corners), self._cut(told, corners), level)

    def _cut(self, videos: Tensor, corners: Tensor) -> Tensor:
        side = self.side
        cuts = [
            video[:, :, top : top + side, left : left + side]
            for video, (top, left) in zip(videos, corners.tolist(), strict=True)
        ]
        return torch.stack(cuts)


class _SuperResolutionStep(DenoisingStep):
    """What both steps do alike: true videos (B, 3, F, S, S) and what is told of them."""

    def __init__(
        self, recipe: Recipe, device: torch.device, opened: Callable[[DataOptions], FrameCache] = open_data
    ) -> None:
        self.options = parse_table(SuperResolutionOptions, recipe.options, "options")
        self.device, self.seed = device, recipe.train.seed
        self.cache = opened(recipe.data)
        options = self.options
        self.process: DiffusionProcess = DiffusionProcess(
            SCHEDULE, weighting=options.weighting, gamma=options.gamma, power=options.timestep_power
        )
        torch.manual_seed(recipe.train.seed)
        self.trained = self.network()
        self.pairs = PairMaker(self.options, self.trained, self.cache.size, device)

    @abstractmethod
    def network(self) -> Any:
        """The network to train."""

    def cut_batch(self, truth: Tensor, update: int, first: int) -> Batch:
        """True videos, some mirrored, with the corners of their cuts."""
        rng = np.random.default_rng((self.seed, update, first, 1))
        corners = self.pairs.corners(len(truth), rng)
        mirrored = torch.from_numpy(rng.random(len(truth)) < 0.5) & self.options.flip
        return {"pixels": torch.where(mirrored[:, None, None, None, None], truth.flip(-1), truth), "corners": corners}

    def problem(self, batch: Batch) -> Problem:
        """The pictures, or what the enlarged ones lack of them, told the enlarged ones."""
        pair = self.pairs(batch["pixels"].to(self.device), batch["corners"], self.process.scheduler.alphas_cumprod)
        std = self.options.residual_std
        clean = (pair.truth - pair.base) / std if std else pair.truth
        noise = torch.randn_like(clean)
        if self.options.shared_noise:
            noise = mix_noise(noise, torch.randn_like(clean[:, :, :1]), self.options.shared_noise)

        def call(network: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
            return predict(network, noisy, pair.told, timestep, pair.level, conditions.get("fps"))

        return Problem(clean, noise, call, {"fps": batch["fps"]} if "fps" in batch else {})

    def export_beside(self, folder: Path, config: Any) -> None:
        """``scheduler/``, and ``stage_config.json``: what the stage's configuration must say for this network."""
        _solver().save_pretrained(folder / "scheduler")
        write_json(folder / "stage_config.json", {"scale": config.scale, "residual_std": config.residual_std})


class ImageSuperResolutionStep(_SuperResolutionStep):
    """The TrainStep of a super-resolution network for pictures: SR_h, and SR_l before it knows time."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.config = SpatialConfig(self.options.scale, self.options.residual_std)

    def network(self) -> Any:
        """A UNet2DModel, new or from ``init``."""
        if self.options.init:
            return read_network(UNet2DModel, self.options.init, "init")
        return new_network(UNet2DModel, self.options.model_arguments())

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Pictures (B, 3, 1, S, S) and corners (B, 2)."""
        _, rows = self.sampler.draw(update, first, batch_size)
        return self.cut_batch(self.sampler.pixels(rows)[:, :, None], update, first)

    def sheet(self, path: Path) -> None:
        """Low-resolution pictures, enlarged, above what the network makes of them and the true ones."""
        _, rows = self.sampler.draw(0, 1_000_003, 6)
        truth = self.sampler.pixels(rows)
        low = self.pairs.low(truth[:, :, None].to(self.device), float(self.pairs.vae is not None))[:, :, 0].cpu()
        stage = SpatialStage({"upscaler_unet": self.trained, "upscaler_scheduler": _solver()}, config=self.config)
        made = stage.upscale(low.transpose(0, 1), 0, _SHEET_SETTINGS).transpose(0, 1)
        write_rows(path, [enlarge(low, self.options.scale), made, truth])

    def export(self, folder: Path) -> None:
        """``unet/`` and ``scheduler/`` as diffusers writes them, float16."""
        save_half(self.trained, folder / "unet")
        self.export_beside(folder, self.config)


class VideoSuperResolutionStep(_SuperResolutionStep):
    """The TrainStep of SR_l^t: the image network with temporal layers, on clips."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        super().__init__(recipe, device, open_clips)
        frames, steps = self.options.num_frames, recipe.train.steps
        self.sampler = ClipSampler(self.cache, frames, steps, recipe.train.seed, split=recipe.data.split)
        self.config = SpatiotemporalConfig(self.options.scale, self.options.residual_std)

    def network(self) -> Any:
        """The image network inflated, its own weights frozen unless ``trainable`` is ``all``."""
        if not self.options.image_model:
            raise InputError(
                "options.image_model is missing: name the folder of a trained super-resolution UNet2DModel."
            )
        image_model = read_network(UNet2DModel, self.options.image_model, "image_model")
        scheme = resolve_scheme(self.options.scheme).changed(shared_noise=self.options.shared_noise)
        network = inflate(image_model, scheme=scheme, num_frames=self.options.num_frames)
        if self.options.init:
            before = load(self.options.init, device=torch.device("cpu"), dtype=torch.float32)
            network.load_temporal_state_dict(before.temporal_state_dict())
        if self.options.trainable == "temporal":
            network.freeze_image_model()
        return network

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Clips (B, 3, F, S, S), corners (B, 2) and frame rates (B,)."""
        drawn = self.sampler.batch(update, batch_size, first)
        batch = self.cut_batch(to_model_range(drawn.frames).transpose(1, 2), update, first)
        return batch | {"fps": torch.from_numpy(drawn.fps)}

    def sheet(self, path: Path) -> None:
        """For two clips: frames at low resolution, enlarged, above what the network makes of them and the true ones."""
        stage = SpatiotemporalStage({"sr_unet": self.trained, "sr_scheduler": _solver()}, config=self.config)
        shown = np.linspace(0, self.options.num_frames - 1, min(6, self.options.num_frames)).round().astype(int)
        rows = []
        for index in range(2):
            drawn = self.sampler.sample(0, 1_000_003 + index)
            truth = to_model_range(self.cache.frames[drawn.frame_indices]).transpose(0, 1)
            low = self.pairs.low(truth[None].to(self.device), float(self.pairs.vae is not None))[0].cpu()
            made = stage.upscale(low, index, _SHEET_SETTINGS, drawn.fps)
            large = enlarge(low.transpose(0, 1), self.options.scale)
            rows += [large[shown], made.transpose(0, 1)[shown], truth.transpose(0, 1)[shown]]
        write_rows(path, rows)

    def export(self, folder: Path) -> None:
        """``unet/``: the image network with ``temporal.safetensors`` beside it, float16; ``scheduler/``."""
        save(narrow_copy(self.trained, torch.float16), folder / "unet", force=True)
        self.export_beside(folder, self.config)


def _solver() -> DPMSolverMultistepScheduler:
    return sampler_of(SCHEDULE)


def build_image(recipe: Recipe, device: torch.device) -> ImageSuperResolutionStep:
    """The step a recipe with ``step = "image-super-resolution"`` trains."""
    return ImageSuperResolutionStep(recipe, device)


def build_video(recipe: Recipe, device: torch.device) -> VideoSuperResolutionStep:
    """The step a recipe with ``step = "video-super-resolution"`` trains."""
    return VideoSuperResolutionStep(recipe, device)
