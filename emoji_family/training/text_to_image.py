"""Training emoji-sd's UNet, and its text encoder if wanted, on pictures and captions: the v-loss of latents.

Or the distance from what a teacher predicts, a decoder of image embeddings that is told the last state of the caption.
Where v of a training picture is one draw, the teacher's prediction is the mean over all pictures that its embedding
fits, so the student learns in fewer updates what the teacher knows already. Where both have the same blocks, what comes
out of each says more than the last one alone (hints, as in FitNets, arXiv:1412.6550).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from emoji_family.pipeline import read_vae, write_pipeline
from emoji_family.text import read_text_encoder, read_tokenizer, tokens_of
from emoji_family.training.text_encoder import Captions
from emoji_family.unet import as_stable_diffusion
from inflate.errors import InputError
from inflate.models.decoder import decode_latents, encode_pixels, image_conditioning
from inflate.stages import denoise
from inflate.train.noising import NoiseSchedule, sampler_of
from inflate.train.pictures import PictureSampler, encode_all, open_data, weights_key
from inflate.train.recipe import Recipe, parse_table
from inflate.train.sheets import write_rows
from inflate.train.step import Batch, StepLoss


@dataclass(frozen=True)
class TextToImageOptions:
    """What to start from and how to train.

    ``unet``: folder to start from; where it has a class embedding, see ``as_stable_diffusion``. ``text``: folder with
    ``text_encoder`` and ``tokenizer``. ``vae``: whose latents are drawn; ``ship_vae``: the autoencoder of the exported
    pipeline, where it is another one with the same latents. ``teacher``: folder of a UNet with a class embedding, whose
    predictions are learned; "" is none. ``hints``: how much the distance of its blocks' outputs counts, each in units
    of its own variance.

    ``train_text_encoder``; ``dropout`` and ``keywords`` as in ``TextEncoderOptions``; ``weighting``, ``gamma`` and
    ``timestep_power`` as in ``NoiseSchedule``.
    """

    unet: str
    text: str
    vae: str
    ship_vae: str = ""
    teacher: str = ""
    hints: float = 0.0
    train_text_encoder: bool = False
    dropout: float = 0.1
    keywords: float = 0.15
    weighting: str = "v"
    gamma: float = 5.0
    timestep_power: float = 1.0


class TextToImageStep:
    """The TrainStep of the network that draws."""

    unit = "images"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        options = parse_table(TextToImageOptions, recipe.options, "options")
        self.options, self.device, self.seed = options, device, recipe.train.seed
        self.cache = open_data(recipe.data)
        self.sampler = PictureSampler(self.cache, recipe.data, recipe.train.seed)
        self.vae = read_vae(options.vae, device)
        self.latents = encode_all(
            self.cache, "latents", weights_key(options.vae), lambda pixels: encode_pixels(self.vae, pixels.to(device))
        )
        text_encoder = read_text_encoder(Path(options.text) / "text_encoder").to(device)
        self.tokenizer = read_tokenizer(Path(options.text) / "tokenizer")
        self.captions = Captions(self.cache, self.tokenizer, options.dropout, options.keywords)
        self._end = text_encoder.config.eos_token_id
        self.schedule = NoiseSchedule(options.weighting, options.gamma, device, options.timestep_power)
        torch.manual_seed(recipe.train.seed)
        unet = self._unet(text_encoder)
        self.trained = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
        self.trained["text_encoder"].requires_grad_(options.train_text_encoder)
        self.teacher: Any = None
        if options.teacher:
            self.teacher = UNet2DConditionModel.from_pretrained(
                options.teacher, local_files_only=True, torch_dtype=torch.float32
            )
            self.teacher.to(device).eval().requires_grad_(False)
            self.features = [_Features(self.teacher), _Features(unet)]

    def _unet(self, text_encoder: Any) -> UNet2DConditionModel:
        unet = UNet2DConditionModel.from_pretrained(self.options.unet, local_files_only=True, torch_dtype=torch.float32)
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
        noisy, _, timestep = self.schedule.noised(batch["latents"].to(self.device))
        return as_stable_diffusion(unet.to(self.device), noisy, timestep, embeds)

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, h, w) and tokens (B, T)."""
        entries, rows = self.sampler.draw(update, first, batch_size)
        rng = np.random.default_rng((self.seed, update, first, 1))
        latents = torch.from_numpy(self.latents[rows].astype(np.float32))
        return {"latents": latents, "tokens": self.captions.draw(entries, rng)}

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted squared error of v, or of the teacher's v."""
        noisy, target, timestep = self.schedule.noised(batch["latents"].to(self.device))
        states = self._states(batch["tokens"])
        if self.teacher is not None:
            target = self._taught(noisy, timestep, batch["tokens"], states)
        predicted = self.trained["unet"](noisy, timestep, encoder_hidden_states=states).sample
        loss = self.schedule.loss(predicted, target, timestep)
        if self.teacher is None or not self.options.hints:
            return StepLoss(loss)
        hints = self._hints()
        return StepLoss(loss + self.options.hints * hints, {"teacher": loss.detach(), "hints": hints.detach()})

    def _hints(self) -> Tensor:
        """Mean over blocks of the squared distance between student and teacher, over the teacher's variance."""
        taught, own = (found.outputs for found in self.features)
        parts = [
            (own[name].float() - made.float()).square().mean() / made.float().var() for name, made in taught.items()
        ]
        return torch.stack(parts).mean()

    @torch.no_grad()
    def _taught(self, noisy: Tensor, timestep: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
        """The teacher's prediction; of an empty caption its unconditional one, as its own training had it."""
        # Start and end token, and nothing between them.
        empty = (tokens[:, 1] == int(self._end)).to(self.device)
        embeds = states[:, -1].float() * ~empty[:, None]
        return self.teacher(noisy, timestep, **image_conditioning(embeds)).sample.float()

    def _states(self, tokens: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.options.train_text_encoder and torch.is_grad_enabled()):
            return self.trained["text_encoder"](tokens.to(self.device)).last_hidden_state

    def sheet(self, path: Path) -> None:
        """True pictures above what it draws from their captions."""
        entries, rows = self.sampler.draw(0, 1_000_003, 16)
        texts = [self.cache.entries[int(number)].caption for number in entries]
        states = self._states(tokens_of(self.tokenizer, [""] * len(texts) + texts))
        generator = torch.Generator(self.device).manual_seed(0)

        def predict(sample: Tensor, timestep: Tensor) -> Tensor:
            made = self.trained["unet"](torch.cat([sample, sample]), timestep, encoder_hidden_states=states).sample
            without, given = made.float().chunk(2)
            return without + 2.5 * (given - without)

        shape = (len(texts), *self.latents.shape[1:])
        noise = torch.randn(shape, generator=generator, device=self.device)
        latents = denoise(sampler_of(self.schedule.config), predict, noise, 15, generator)
        write_rows(path, [self.sampler.pixels(rows), decode_latents(self.vae, latents).cpu()], scale=2)

    def export(self, folder: Path) -> None:
        """The folder of a ``StableDiffusionPipeline``, float16."""
        vae = Path(self.options.ship_vae or self.options.vae)
        parts: Any = self.trained
        write_pipeline(folder, parts["unet"], parts["text_encoder"], Path(self.options.text) / "tokenizer", vae)


class _Features:
    """What residual blocks and transformers of a UNet put out in its last call, by name."""

    def __init__(self, unet: Any) -> None:
        self.outputs: dict[str, Tensor] = {}
        for name, module in unet.named_modules():
            if isinstance(module, ResnetBlock2D | Transformer2DModel):
                module.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.outputs[name] = output[0] if isinstance(output, tuple) else output


def build(recipe: Recipe, device: torch.device) -> TextToImageStep:
    """The step a recipe with ``step = "text-to-image"`` trains."""
    return TextToImageStep(recipe, device)
