"""Fine-tuning any image model on clips: video model + conditioner + process + data.

``inflate finetune --model MODEL --data CLIPS`` trains this step. By default only the temporal layers learn; what the
network is told and how it is called is the same object in training and in sampling (:mod:`inflate.bases`).
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inflate.bases import Base, Encoding, joined, open_base, predict
from inflate.data.clips import ClipSampler, ClipSet, PrefetchedClips, open_clips
from inflate.diffusion.noise import mix_noise
from inflate.errors import InputError
from inflate.inflater import InflatedModel, inflate, resolve_scheme
from inflate.layers import MotionModule
from inflate.train.adapters import (
    DOMAIN,
    add_domain_adapter,
    add_motion_lora,
    merged_temporal_state,
    save_domain_adapter,
    save_motion_lora,
)
from inflate.train.denoising import DenoisingStep, Problem
from inflate.train.encodings import ClipEncodings, EncoderPlace, choose_condition, on_device
from inflate.train.held_out import HeldOutClip, Reference, held_out_losses
from inflate.train.processes import process_of, squared_errors
from inflate.train.recipe import Recipe, parse_table
from inflate.train.step import Batch, StepLoss
from inflate.train.video_export import export_video_model, read_start
from inflate.train.video_options import DTYPE_OF_PRECISION, DTYPES, VideoOptions, data_advice, temporal_change
from inflate.train.video_samples import SampleRequest, VideoSamples, sample_settings

_HELD_OUT_SEED = 20_261
# What a number is drawn for; a clip's numbers follow from (seed, update, place in the update, this).
_TIME, _NOISE, _SHARED, _DROP = range(4)


class VideoStep(DenoisingStep):
    """The TrainStep of a video model on top of what a user brought."""

    unit = "clips"

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.options = options = parse_table(VideoOptions, recipe.options, "options")
        self.data = recipe.clip_options
        self.seed = recipe.train.seed
        self.base: Base = open_base(options.model, options.parts or None, options.variant or None)
        self.clips: ClipSet = open_clips(self.data, self.base.multiple)
        self.train_numbers = self.clips.select("train", "clip")
        self.picture_numbers = self.clips.select("train", "picture")
        self._check_pictures()
        self.samplers: dict[str, ClipSampler] = {}
        self.encodings = self._encodings()
        self.told = self.encodings.prepare(options.sample_prompts)
        self.reader = None if options.cache else self._reader()
        self.process = process_of(
            self.base.scheduler_config,
            self.base.process,
            options.timestep_density,
            options.weighting,
            options.gamma,
            self._tokens(),
        )
        self.trained = self._video_model()
        self.held_out = self._held_out()
        self.image_losses = self._reference()
        self.video_samples = VideoSamples(
            self.base, self.trained, self.encodings, self._sample_requests(), sample_settings(self.base, options)
        )

    def _check_pictures(self) -> None:
        if not self.options.pictures_per_batch:
            return
        if not self.picture_numbers:
            raise InputError("options.pictures_per_batch needs pictures; name their folder as data.pictures.")
        if self.options.trainable == "temporal":
            raise InputError(
                "options.pictures_per_batch trains nothing while options.trainable is 'temporal', since pictures pass "
                "the image model alone; use 'temporal+lora' or 'all', or leave it out."
            )

    def _encodings(self) -> ClipEncodings:
        conditioner = self.base.conditioner()
        captions = any(self.clips.windows[number].caption for number in self.train_numbers)
        condition = choose_condition(self.options.condition, conditioner.reads, captions)
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        place = EncoderPlace(self.device, dtype)
        folder = self.data.cache_folder / "encodings" if self.options.cache else None
        return ClipEncodings(self.clips, self.base.autoencoder(), conditioner, condition, place, folder)

    def _reader(self) -> PrefetchedClips:
        train = self.recipe.train
        return PrefetchedClips(
            self.clips,
            self.seed,
            train.batch_size,
            train.gradient_accumulation_steps,
            self.train_numbers,
            self.data.workers,
        )

    def _tokens(self) -> int:
        """Tokens of one picture of the first clip, for schedulers that shift by resolution."""
        window = self.clips.windows[self.train_numbers[0]]
        cells = self.encodings.autoencoder.factor * self.base.patch
        return (window.height // cells) * (window.width // cells)

    def _video_model(self) -> InflatedModel:
        options, precision = self.options, self.recipe.train.mixed_precision
        frozen = options.trainable == "temporal"
        name = (
            options.image_dtype
            if options.image_dtype != "auto"
            else DTYPE_OF_PRECISION[precision]
            if frozen
            else "float32"
        )
        image_model: Any = self.base.load_network(torch.device("cpu"), DTYPES[name])
        torch.manual_seed(self.seed)
        noise = {"shared_noise": options.shared_noise, "noise_time": options.noise_time}
        video_model = inflate(image_model, resolve_scheme(options.scheme).changed(**noise), self.data.num_frames)
        if options.init:
            video_model.load_temporal_state_dict(read_start(options.init, video_model))
        # Trained weights are float32 whatever the frozen ones are; autocast brings the two together.
        video_model.temporal.float()
        video_model.image_model.requires_grad_(options.trainable == "all")
        if options.trainable == "temporal+lora":
            add_domain_adapter(video_model.image_model, options.lora_rank, options.lora_alpha)
        if options.motion_lora_rank:
            add_motion_lora(video_model, options.motion_lora_rank, options.lora_alpha)
        return video_model.to(self.device)

    # What an update sees

    def draw(self, update: int, first: int, batch_size: int) -> Batch:
        """Latents (B, c, F, h, w), what the network is told, noise and times of ``batch_size`` clips, and of pictures.

        Everything of a clip follows from (seed, update, its place in the update), so that how an update is cut into
        micro-batches changes nothing.
        """
        batch = self._draw(self.train_numbers, update, first, batch_size)
        pictures = self.options.pictures_per_batch
        if pictures:
            place = first // batch_size * pictures
            batch["pictures"] = self._draw(self.picture_numbers, update, place, pictures, (1,))
        return batch

    def _draw(self, numbers: Sequence[int], update: int, first: int, count: int, stream: tuple[int, ...] = ()) -> Batch:
        drawn, frames = self._drawn(numbers, update, first, count)
        latents = torch.stack([self.encodings.latents(*one) for one in zip(drawn, frames, strict=True)])
        keys = [(self.seed, update, first + place, *stream) for place in range(count)]
        uniform = torch.tensor([_generator(key, _TIME).random() for key in keys], dtype=torch.float64)
        dropped = torch.tensor([_generator(key, _DROP).random() for key in keys]) < self.options.condition_dropout
        return {
            "latents": latents,
            "told": joined(*(self.encodings.told(*one) for one in zip(drawn, frames, strict=True))),
            "dropped": dropped,
            "times": self.process.times(uniform.float()),
            "noise": self._noise(keys, latents, torch.tensor([self.clips.windows[number].fps for number in drawn])),
            "fps": torch.tensor([self.clips.windows[number].fps for number in drawn], dtype=torch.float32),
            "size": (self.clips.windows[drawn[0]].height, self.clips.windows[drawn[0]].width),
        }

    def _drawn(
        self, numbers: Sequence[int], update: int, first: int, count: int
    ) -> tuple[list[int], list[np.ndarray | None]]:
        """Numbers of the drawn windows, and their frames where these are read ahead."""
        if self.reader is not None and numbers is self.train_numbers:
            batch = self.reader.batch(update, first, count)
            return list(batch.indices), list(batch.frames.numpy())
        kind = self.clips.windows[numbers[0]].kind
        if kind not in self.samplers:
            self.samplers[kind] = ClipSampler([self.clips.windows[number] for number in numbers], self.seed)
        return [numbers[place] for place in self.samplers[kind].draw(update, first, count)], [None] * count

    def _noise(self, keys: Sequence[tuple[int, ...]], latents: Tensor, fps: Tensor) -> Tensor:
        own = torch.stack([_normal(key, _NOISE, one.shape) for key, one in zip(keys, latents, strict=True)])
        shares = torch.tensor([self.trained.scheme.noise_share(rate) for rate in fps.tolist()])
        if not bool(shares.any()) or latents.shape[2] == 1:
            return own
        one_frame = (*latents.shape[1:2], 1, *latents.shape[3:])
        return mix_noise(own, torch.stack([_normal(key, _SHARED, one_frame) for key in keys]), shares)

    # The loss

    def __call__(self, batch: Batch) -> StepLoss:
        """The weighted squared error of what the network predicts, averaged over clips, and pictures with them."""
        # Some image models (DiT) drop conditions of their own accord while they train; here the recipe says how often.
        self.trained.image_model.eval()
        errors = self._errors(batch, self.trained)
        if "pictures" in batch:
            errors = torch.cat([errors, self._errors(batch["pictures"], self.trained.image_model)])
        return StepLoss(errors.mean())

    def _errors(self, batch: Batch, model: Any) -> Tensor:
        """Errors (B,). The image model alone answers for pictures: temporal layers are not even run."""
        problem = self.problem(batch)
        noised = self.noised(problem)
        return squared_errors(self.answer(problem, noised, model), noised)

    def problem(self, batch: Batch) -> Problem:
        """Latents of clips, told what the conditioner says of them; all that is random is drawn with the batch."""
        clean, noise, times = (batch[name].to(self.device) for name in ("latents", "noise", "times"))
        (height, width), fps = batch["size"], batch["fps"]

        def call(network: Any, noisy: Tensor, timestep: Tensor, conditions: Encoding, **more: Any) -> Tensor:
            told = self.encodings.conditioner.arguments(
                on_device(conditions, self.device), height, width, self.options.guidance
            )
            return predict(network, noisy, timestep, told | more, fps)

        unconditional = _repeated(self.encodings.unconditional(), len(clean))
        return Problem(clean, noise, call, batch["told"], unconditional, times=times, dropped=batch["dropped"])

    # Held-out clips

    def _held_out(self) -> list[HeldOutClip]:
        clips, numbers = [], self._held_out_numbers()
        chosen = numbers if len(numbers) <= self.options.validation_clips else self._spread(numbers)
        for place, number in enumerate(chosen):
            window, latents = self.clips.windows[number], self.encodings.latents(number)[None]
            noise = self._noise([(_HELD_OUT_SEED, place)], latents, torch.tensor([window.fps]))
            arguments = self.encodings.conditioner.arguments(
                on_device(self.encodings.told(number), self.device), window.height, window.width, self.options.guidance
            )
            clips.append(HeldOutClip(latents.to(self.device), noise.to(self.device), arguments, window.fps))
        return clips

    def _held_out_numbers(self) -> list[int]:
        """Windows of the videos held out; of a single video its own, which are then seen at noise never trained at."""
        numbers = list(self.clips.select("validation", "clip"))
        return numbers if numbers or not self.data.validation else list(self.train_numbers)

    def _spread(self, numbers: Sequence[int]) -> list[int]:
        """As many as the recipe says, spread evenly, so that they come from different videos."""
        places = np.linspace(0, len(numbers) - 1, self.options.validation_clips).round().astype(int)
        return [numbers[place] for place in places]

    def _reference(self) -> dict[float, float]:
        if not self.held_out:
            return {}
        names = [self.clips.windows[number].key for number in self._held_out_numbers()]
        key = repr((self.options.model, sorted(self.options.parts.items()), names, self.options.validation_clips))
        path = self.recipe.output_folder / "image_model_losses.json"
        return Reference(path).losses(key, lambda: self._losses(self.trained.image_model))

    def _losses(self, model: Any) -> dict[float, float]:
        was_training = self.trained.training
        self.trained.eval()

        def answer(noisy: Tensor, timestep: Tensor, arguments: dict[str, Any], fps: float) -> Tensor:
            with self._autocast():
                return predict(model, noisy, timestep, arguments, fps)

        try:
            return held_out_losses(self.held_out, self.process, answer)
        finally:
            self.trained.train(was_training)

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self.recipe.train.mixed_precision
        return torch.autocast(
            self.device.type, DTYPES[DTYPE_OF_PRECISION[precision]] if precision != "no" else None, precision != "no"
        )

    def validate(self) -> dict[str, float]:
        """The held-out loss of the video model and of the image model, at each noise level and on average."""
        if not self.held_out:
            return {}
        video = self._losses(self.trained)
        values = {f"validation_{level}": loss for level, loss in video.items()}
        values |= {f"image_model_{level}": loss for level, loss in self.image_losses.items()}
        values["validation_loss"] = sum(video.values()) / len(video)
        values["image_model_loss"] = sum(self.image_losses.values()) / len(self.image_losses)
        return values

    # What a run shows and leaves

    def facts(self) -> dict[str, float]:
        """What the diagnosis asks for; see :mod:`inflate.train.diagnosis`."""
        said = [self.clips.windows[number].caption for number in self.train_numbers]
        values = {"temporal_change": temporal_change(self.trained)} | self.video_samples.facts
        if self.encodings.condition == "text":
            values |= {"captions": float(len(said)), "distinct_captions": float(len(set(said)))}
        return values

    def advice(self) -> list[str]:
        """What is known of data and condition before anything is trained."""
        said = data_advice(self.clips, self.encodings.condition, self.trained.scheme.fps_range)
        if self.held_out and not self.clips.select("validation", "clip"):
            said.append(
                "With one video no other can be held out: the held-out loss is that of its own frames at noise that "
                "training never draws; it falls while the video is learned by heart too."
            )
        return [f"{self.data.path}: {self.clips.report.sentence()}", *said]

    def _sample_requests(self) -> list[SampleRequest]:
        numbers = self.clips.select("validation", "clip") or self.train_numbers
        numbers = numbers[: self.options.sample_clips]
        requests = []
        for place, number in enumerate(numbers):
            window = self.clips.windows[number]
            prompts = self.options.sample_prompts
            asked = prompts[place % len(prompts)] if prompts else ""
            told = self.told[asked] if asked in self.told else self.encodings.told(number)
            prompt = asked or window.caption
            requests.append(
                SampleRequest(
                    name=prompt or window.name,
                    told=told,
                    unconditional=self.encodings.unconditional(),
                    real=lambda number=number: self.clips.read(number),
                    fps=window.fps,
                    num_frames=window.num_frames,
                    size=(window.height, window.width),
                    seed=place,
                    prompt=prompt,
                )
            )
        return requests

    def samples(self, folder: Path) -> None:
        """A video of each sample prompt (mp4), and one sheet of real and made frames."""
        with self._autocast():
            self.video_samples.write(folder, self.options.guidance)

    def sheet(self, path: Path) -> None:
        """The sheet alone."""
        with self._autocast():
            self.video_samples.write_sheet(path, self.options.guidance)

    def export(self, folder: Path) -> None:
        """What was brought, with the temporal weights; LoRAs beside them, as files of their own."""
        trained_all = self.options.trainable == "all"
        temporal = merged_temporal_state(self.trained)
        exported = export_video_model(self.base, self.trained, temporal, folder, trained_all, self._usual()[:2])
        if self.options.trainable == "temporal+lora":
            prefix = "unet" if "UNet" in type(self.trained.image_model).__name__ else "transformer"
            save_domain_adapter(self.trained.image_model, exported.folder / f"{DOMAIN}_adapter", prefix)
        if self.options.motion_lora_rank:
            save_motion_lora(self.trained, exported.folder / "motion_lora.safetensors")

    def _usual(self) -> tuple[int, int, float]:
        """Height and width of most clips that it was trained on, and the rate in the middle of theirs, rounded."""
        windows = [self.clips.windows[number] for number in self.train_numbers]
        height, width = Counter((window.height, window.width) for window in windows).most_common(1)[0][0]
        rate = float(np.median([window.fps for window in windows]))
        return height, width, float(f"{rate:.2g}") if len({window.fps for window in windows}) > 1 else rate

    def next_steps(self, export: Path) -> str:
        """What to type next, in a shell."""
        prompts = [request.prompt for request in self.video_samples.requests if self.encodings.condition == "text"]
        prompt = next(filter(None, prompts), "a prompt")
        said = "" if self.encodings.condition == "nothing" else f'"{prompt}" '
        lines, model = ["Next:"], str(export)
        if self.encodings.conditioner.reads == "image" and not (export / "prior").is_dir():
            # A decoder alone: what makes its image embeddings of a prompt lies in a folder of its own.
            encoder = self.base.parts.get("image_encoder")
            prior = "FOLDER_OF_THE_PRIOR" if encoder is None else encoder.parent.resolve()
            said, model = '"a prompt" ', f"{export.parent / 'video.toml'}"
            tables = f'[prior]\\nfrom = "{prior}"\\n[decoder]\\nfrom = "{export.resolve()}"\\n'
            lines.append(f"printf '{tables}' > {model}")
        lines.append(f"inflate generate {said}--model {model} --fps {self._usual()[2]:g} -o video.mp4")
        if self.trained.scheme.has(MotionModule):
            lines.append(f"inflate export {export} adapter --to motion-adapter   # for diffusers' AnimateDiffPipeline")
        return "\n".join(lines)


def _repeated(encoding: Encoding, count: int) -> Encoding:
    return {name: value.expand(count, *value.shape[1:]) for name, value in encoding.items()}


def _generator(key: tuple[int, ...], what: int) -> np.random.Generator:
    return np.random.default_rng((*key, what))


def _normal(key: tuple[int, ...], what: int, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(_generator(key, what).standard_normal(tuple(shape), dtype=np.float32))


def build(recipe: Recipe, device: torch.device) -> VideoStep:
    """The step that a recipe with ``step = "video"`` trains."""
    return VideoStep(recipe, device)
