"""Training emoji-sd's UNet, and its text encoder if wanted, on pictures and captions: the v-loss of latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from emoji_family.looks import looks_of
from emoji_family.pipeline import read_vae, write_pipeline
from emoji_family.text import read_text_encoder, read_tokenizer, tokens_of
from emoji_family.training.text_encoder import Captions, known_from, latents_of
from emoji_family.unet import as_stable_diffusion
from inflate.diffusion.guidance import Guidance
from inflate.errors import InputError
from inflate.models.decoder import decode_latents
from inflate.sampling.denoiser import Denoiser
from inflate.sampling.loop import denoise
from inflate.sampling.noise import draw_noise
from inflate.train.choices import check_choices
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.networks import read_network
from inflate.train.noising import SCHEDULE, sampler_of
from inflate.train.pictures import PictureSampler, open_data
from inflate.train.processes import DiffusionProcess
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch
from inflate.train.steps.decoder import call_network


@dataclass(frozen=True)
class TextToImageOptions:
    """What to start from and how to train.

    ``unet``: folder to start from; where it has a class embedding, see ``as_stable_diffusion``. ``text``: folder with
    ``text_encoder`` and ``tokenizer``. ``vae``: whose latents are drawn; ``ship_vae``: the autoencoder of the exported
    pipeline, where it is another one with the same latents.

    ``told``: "states" of captions, or at first "looks" (:mod:`emoji_family.looks`) in their place from the end token
    on, while the text encoder is still learning to say those. ``train_text_encoder``; ``dropout`` and ``keywords`` as
    in ``TextEncoderOptions``; ``weighting``, ``gamma`` and ``timestep_power`` as in ``DiffusionProcess``.
    """

    unet: str
    text: str
    vae: str
    ship_vae: str = ""
    told: str = "states"
    train_text_encoder: bool = False
    dropout: float = 0.1
    keywords: float = 0.15
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self)


class TextToImageStep(DenoisingStep):
    """The TrainStep of the network that draws."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        options = parse_table(TextToImageOptions, recipe.options, "options")
        self.options, self.device, self.seed = options, device, recipe.train.seed
        self.cache = open_data(recipe.data, captions=True)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.vae = read_vae(options.vae, device)
        self.latents = latents_of(self.cache, self.vae, options.vae, device)
        text_encoder: Any = read_text_encoder(Path(options.text) / "text_encoder")
        text_encoder.to(device)
        self.tokenizer = read_tokenizer(Path(options.text) / "tokenizer")
        self.captions = Captions(self.cache, self.tokenizer, options.dropout, options.keywords)
        self.looks = None
        if options.told == "looks":
            names = {self.cache.entries[number].name for thing in self.sampler.things for number in thing}
            self.looks = looks_of(self.cache, self.latents, names, text_encoder.config.hidden_size).codes
        self._end = int(text_encoder.config.eos_token_id)
        self.process: DiffusionProcess = DiffusionProcess(
            SCHEDULE, weighting=options.weighting, gamma=options.gamma, power=options.timestep_power
        )
        torch.manual_seed(recipe.train.seed)
        unet = self._unet(text_encoder)
        self.trained = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
        self.trained["text_encoder"].requires_grad_(options.train_text_encoder)

    def _unet(self, text_encoder: Any) -> UNet2DConditionModel:
        unet = read_network(UNet2DConditionModel, self.options.unet, "unet")
        width, states = unet.config["cross_attention_dim"], text_encoder.config.hidden_size
        if width != states:
            raise InputError(
                f"{self.options.unet} attends to states of {width} numbers, the text encoder has {states}."
            )
        if unet.config["class_embed_type"] is None:
            return unet
        # The last state of a caption is nearly the image embedding that the class embedding was made for.
        batch = self.draw(0, 3_000_003, 64)
        with torch.no_grad():
            embeds = text_encoder(batch["tokens"].to(self.device)).last_hidden_state[:, -1]
        clean = batch["latents"].to(self.device)
        noised = self.noised(Problem(clean, torch.randn_like(clean), call_network, {}))
        unet.to(self.device)  # pyright: ignore[reportArgumentType]
        return as_stable_diffusion(unet, noised.noisy, noised.timestep, embeds)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, h, w) and tokens (B, T)."""
        entries, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        latents = torch.from_numpy(self.latents[rows].astype(np.float32))
        batch = {"latents": latents, "tokens": self.captions.draw(entries, rng)}
        return batch if self.looks is None else batch | self._with_looks(batch["tokens"], entries)

    def _with_looks(self, tokens: Tensor, entries: np.ndarray) -> Batch:
        assert self.looks is not None
        looks = torch.stack([self.looks[self.cache.entries[int(number)].name] for number in entries])
        return {"tokens": tokens, "looks": looks.repeat(len(tokens) // len(looks), 1)}

    def problem(self, batch: Batch) -> Problem:
        """Latents of pictures, told the states of their captions (some empty already)."""
        clean = batch["latents"].to(self.device)
        states = self._looks(batch) if self.looks is not None else self._states(batch["tokens"])

        def call(networks: Any, noisy: Tensor, timestep: Tensor, conditions: dict[str, Any], **more: Any) -> Tensor:
            return call_network(networks["unet"], noisy, timestep, conditions, **more)

        return Problem(clean, torch.randn_like(clean), call, {"encoder_hidden_states": states})

    def _looks(self, batch: Batch) -> Tensor:
        """(B, T, D): looks from the end token on; before it a share of them, as much as words alone would say."""
        tokens, looks = batch["tokens"].to(self.device), batch["looks"].to(self.device)
        known = known_from(tokens, self._end).float()
        known = known + (1 - known) * torch.rand(known.shape, device=self.device) * 0.5
        known[:, 0] = 0
        known = known * (tokens[:, 1:2] != self._end)
        return looks[:, None] * known[:, :, None]

    def _states(self, tokens: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.options.train_text_encoder and torch.is_grad_enabled()):
            return self.trained["text_encoder"](tokens.to(self.device)).last_hidden_state

    def sheet(self, path: Path) -> None:
        """True pictures above what it draws from their captions."""
        entries, rows = self.sampler.draw(0, 1_000_003, 16)
        texts = [self.cache.entries[int(number)].caption for number in entries]
        tokens = tokens_of(self.tokenizer, [""] * len(texts) + texts)
        states = self._states(tokens) if self.looks is None else self._looks(self._with_looks(tokens, entries))
        generator = torch.Generator(self.device).manual_seed(0)

        scheduler, unet = sampler_of(self.process.config), self.trained["unet"]
        predict = Denoiser(unet, scheduler, {"encoder_hidden_states": states}, Guidance(2.5))
        noise = draw_noise((len(texts), *self.latents.shape[1:]), generator, self.device)
        latents = denoise(scheduler, predict, noise, 15, generator)
        write_rows(path, [self.sampler.pixels(rows), decode_latents(self.vae, latents).cpu()], scale=2)

    def export(self, folder: Path) -> None:
        """The folder of a ``StableDiffusionPipeline``, float16."""
        vae = Path(self.options.ship_vae or self.options.vae)
        parts: Any = self.trained
        write_pipeline(folder, parts["unet"], parts["text_encoder"], Path(self.options.text) / "tokenizer", vae)


def build(recipe: Recipe, device: torch.device) -> TextToImageStep:
    """The step a recipe with ``step = "text-to-image"`` trains."""
    return TextToImageStep(recipe, device)
