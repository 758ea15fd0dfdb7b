"""What other people's pipelines have in common: parts of transformers, CLIP's text, and networks told with variance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor

from inflate.diffusion.guidance import Guidance
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.clip import EncodedText
from inflate.models.decoder import DecoderStage, frame_noise
from inflate.models.guided import check_threshold, guidance_of, needs_both, thresholded
from inflate.models.known_frames import Predict
from inflate.models.prior import warn_if_cut
from inflate.models.segments import embeds_at, on_show, prompt_at
from inflate.models.windows import WindowConfig, WindowedPrediction, Windows, windows_of
from inflate.stages import ChainState, OnStep, StageSettings, denoise, read_diffusers_component, stage_generator

# "Fast" tokenizers and feature extractors are what transformers once called what it now calls by the second name.
_TRANSFORMERS = {
    "CLIPTextModel": "CLIPTextModel",
    "CLIPTextModelWithProjection": "CLIPTextModelWithProjection",
    "CLIPVisionModelWithProjection": "CLIPVisionModelWithProjection",
    "CLIPTokenizer": "CLIPTokenizer",
    "CLIPTokenizerFast": "CLIPTokenizer",
    "CLIPImageProcessor": "CLIPImageProcessor",
    "CLIPFeatureExtractor": "CLIPImageProcessor",
    "XLMRobertaTokenizer": "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast": "XLMRobertaTokenizer",
}
# Classes that diffusers keeps beside a pipeline -> the library that indices name (or "diffusers"), and the modules of
# new and old releases.
_BESIDE_PIPELINES = {
    "UnCLIPTextProjModel": ("unclip", ("pipelines.deprecated.unclip.text_proj", "pipelines.unclip.text_proj")),
    "MultilingualCLIP": ("kandinsky", ("pipelines.kandinsky.text_encoder",)),
}

Told = Mapping[str, Any] | Callable[[float], Mapping[str, Any]]
"""A network's own arguments, or what gives them by the place of a window's middle in the video, in frames."""


def read_part(folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
    """A component of somebody's pipeline: diffusers' own, or one of the few others that pipelines are made of.

    Weights come from safetensors only, and nothing is downloaded.

    Raises:
        InputError: another kind of component, or the folder is missing or damaged.
    """
    if library == "diffusers" and class_name not in _BESIDE_PIPELINES:
        return read_diffusers_component(folder, library, class_name, dtype)
    found = _class_of(library, class_name)
    if found is None:
        raise InputError(f"{folder} is a {library}.{class_name}, which no stage of a cascade knows.")
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; the pipeline's model_index.json names it.")
    read: Callable[..., Any] = found.from_pretrained
    options: dict[str, Any] = {"use_safetensors": True} if issubclass(found, torch.nn.Module) else {}
    options |= {"torch_dtype": dtype} if issubclass(found, ModelMixin) else {}
    try:
        part = read(folder, local_files_only=True, **options)
    except Exception as error:
        # transformers, safetensors and json each raise their own kinds for a damaged folder; all mean the same here.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{folder} cannot be loaded as {class_name}: {reason}") from error
    if not isinstance(part, torch.nn.Module):
        return part
    return part.eval() if part.dtype == dtype else part.to(dtype=dtype).eval()


def write_part(component: Any, folder: Path) -> list[str]:
    """Save a component that :func:`read_part` reads; returns [library, class] as diffusers' indices have them."""
    component.save_pretrained(folder)
    name = type(component).__name__
    if name in _BESIDE_PIPELINES:
        return [_BESIDE_PIPELINES[name][0], name]
    return ["transformers" if name in _TRANSFORMERS else "diffusers", name]


def _class_of(library: str, class_name: str) -> Any:
    if library == "transformers" and class_name in _TRANSFORMERS:
        import transformers

        return getattr(transformers, _TRANSFORMERS[class_name], None)
    home, modules = _BESIDE_PIPELINES.get(class_name, ("", ()))
    for module in modules if library in (home, "diffusers") else ():
        try:
            return getattr(import_module(f"diffusers.{module}"), class_name)
        except ModuleNotFoundError:
            continue
    return None


def encode_clip_text(text_encoder: Any, tokenizer: Any, text: str) -> EncodedText:
    """A text as transformers' ``CLIPTextModelWithProjection`` encodes it, padded to the length the encoder knows.

    Embedding and hidden states (batch 1) are as the model gives them, the embedding not of unit norm: unCLIP's networks
    were trained so.
    """
    limit = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
    warn_if_cut(text, len(tokenizer(text).input_ids), limit)
    tokens = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
    with torch.no_grad():
        encoded = text_encoder(tokens.input_ids.to(text_encoder.device))
    mask = tokens.attention_mask.bool().to(text_encoder.device)
    embeds = getattr(encoded, "text_embeds", None)
    if embeds is None:
        embeds = encoded.pooler_output
    return EncodedText(embeds, encoded.last_hidden_state, mask)


def predict_frames(model: Any, sample: Tensor, timestep: Tensor, told: Mapping[str, Any], fps: float | None) -> Tensor:
    """One evaluation of a network on videos (B, c, F, h, w): all frames at once if inflated, else one after the other.

    ``told`` are the network's own arguments, tensors of first size B; floating point ones are cast to its dtype.
    Returns float32, with whatever channels the network has.
    """
    arguments: dict[str, Any] = _cast(told, model.dtype)
    if isinstance(model, InflatedModel):
        rate = {} if fps is None or model.scheme.fps_range is None else {"fps": float(fps)}
        return model(sample.to(model.dtype), timestep, **rate, **arguments).sample.float()
    pictures = [model(frame.to(model.dtype), timestep, **arguments).sample.float() for frame in sample.unbind(2)]
    return torch.stack(pictures, dim=2)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Mapping):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def sample_frames(
    model: Any,
    scheduler: Any,
    told: Told,
    noise: Tensor,
    settings: StageSettings,
    fps: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    windows: Windows | None = None,
) -> Tensor:
    """Draw one video (1, c, F, h, w) from ``noise`` of that shape, float32.

    A network that predicts twice the channels predicts its variance too, which only a scheduler of learned variance
    takes; guidance changes the noise alone, and the variance is that of the conditional prediction.

    Args:
        model: a ``UNet2DConditionModel``, or an inflated one.
        scheduler: any diffusers scheduler of the model's prediction type.
        told: the network's own arguments, first sizes 2 (unconditional, conditional) with guidance and 1 without; or
            what gives them for a window, by the place of its middle in the video, in frames.
        noise: standard normal.
        settings: steps and guidance.
        fps: frames per second, which an inflated model is told.
        generator: for schedulers that draw noise at each step.
        on_step: called with (step, timestep, sample); what it returns replaces the sample.
        windows: how a longer video than the model's own is cut; None as by default.
    """
    guidance = guidance_of(settings.guidance_scale, settings, scheduler, settings.num_inference_steps)
    predict = frames_predictor(model, scheduler, told, guidance, fps)
    with torch.no_grad():
        by_windows = thresholded(
            WindowedPrediction(predict, windows or windows_of(model)), scheduler, settings.threshold
        )
        return denoise(scheduler, by_windows, noise, settings.num_inference_steps, generator, on_step)


def frames_predictor(
    model: Any, scheduler: Any, told: Told, guidance: Guidance, fps: float | None = None
) -> Callable[..., Tensor]:
    """(sample (1, c, F, h, w), timestep, middle = 0) -> what a network predicts, guided; see :func:`sample_frames`."""
    learned = str(getattr(scheduler.config, "variance_type", "")).startswith("learned")
    guided = guidance.needs_both

    def predict(sample: Tensor, timestep: Tensor, middle: float = 0.0) -> Tensor:
        channels, now = sample.shape[1], told(middle) if callable(told) else told
        made = predict_frames(model, torch.cat([sample, sample]) if guided else sample, timestep, now, fps)
        if guided:
            unconditional, conditional = made.chunk(2)
            guess = guidance(unconditional[:, :channels], conditional[:, :channels], timestep)
            made = torch.cat([guess, conditional[:, channels:]], dim=1)
        return made if learned else made[:, :channels]

    return predict


@dataclass(frozen=True)
class TextConfig(WindowConfig):
    """Of a decoder that reads a text beside the image embedding; as :class:`WindowConfig`.

    ``read_prompt``: whether that is the prompt, as in the image pipeline. False gives it the empty text, for
    Make-A-Video learns from videos without any.
    """

    read_prompt: bool = False


class ForeignDecoderStage(DecoderStage, ABC):
    """D, or D^t, of somebody else: a subclass says what its network is told, and how latents become pixels and back."""

    @abstractmethod
    def told(self, image_embeds: Tensor, prompt: str, guided: bool) -> dict[str, Any]:
        """The network's arguments for one embedding (1, D): first sizes 2 (unconditional, conditional), or 1."""

    def reads_prompt(self) -> bool:
        """As its configuration says, where it can."""
        return bool(getattr(self.config, "read_prompt", False))

    def predictor(
        self, image_embeds: Tensor | None, prompt: str, num_frames: int, fps: float, settings: StageSettings
    ) -> Predict:
        """As :meth:`DecoderStage.predictor`."""
        model, scheduler = self.components["unet"], self.components["scheduler"]
        check_threshold(settings, self.vae())
        with torch.no_grad():
            told = self.told(image_embeds, prompt, needs_both(settings))  # pyright: ignore[reportArgumentType]
        guidance = guidance_of(settings.guidance_scale, settings, scheduler, settings.num_inference_steps)
        return thresholded(frames_predictor(model, scheduler, told, guidance, fps), scheduler, settings.threshold)

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The network as in our families, with temporal layers where its folder has them; the rest as it comes."""
        if role == "unet":
            return super().read(role, folder, library, class_name, dtype)
        return read_part(folder, library, class_name, dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if isinstance(component, InflatedModel):
            return super().write(component, folder)
        return write_part(component, folder)

    def draw(self, state: ChainState, video: int, settings: StageSettings, on_step: OnStep) -> Tensor:
        """Latents (1, c, F, h, w) of one video; without temporal layers each frame is drawn on its own."""
        self.check(state)
        check_threshold(settings, self.vae())
        model = self.components["unet"]
        generator = stage_generator(state.seeds[video], self.name)
        noise = self.first_noise(state, generator)
        with torch.no_grad():
            told = self.told_by_time(state, video, needs_both(settings))
        return sample_frames(
            model,
            self.components["scheduler"],
            told,
            noise,
            settings,
            state.fps,
            generator,
            lambda step, timestep, sample: on_step(video, step, timestep, sample),
            windows_of(model, self.config),
        )

    def check(self, state: ChainState) -> Tensor:
        """As :meth:`DecoderStage.check`, and the embeddings' size."""
        embeds, wanted = super().check(state), self.embed_size()
        if embeds.ndim != 2 or (wanted is not None and embeds.shape[1] != wanted):
            raise InputError(
                f"The decoder takes image embeddings (batch, {wanted}), got {tuple(embeds.shape)}; "
                "prior and decoder must belong to the same family."
            )
        return embeds

    def first_noise(self, state: ChainState, generator: torch.Generator) -> Tensor:
        """Noise (1, c, F, h, w) that a video starts from."""
        model = self.components["unet"]
        repeat = windows_of(model, self.config) if self.config.repeat_noise else None
        return frame_noise(model, 1, state.num_frames, generator, model.device, state.fps, repeat)

    def told_by_time(self, state: ChainState, video: int, guided: bool) -> Told:
        """:meth:`told` for one of the state's videos; for one of segments by the frame in a window's middle."""
        device, kept = self.components["unet"].device, {}

        def at(frame: float) -> Mapping[str, Any]:
            seconds = frame / state.fps
            key = on_show(state, seconds)
            if key not in kept:
                kept.clear()  # windows come in the order of time
                embeds = embeds_at(state, video, seconds).to(device)
                kept[key] = self.told(embeds, prompt_at(state, video, seconds), guided)
            return kept[key]

        return at if state.segments else at(0)


def optional_config(config: Mapping[str, Any], name: str) -> int | None:
    """A whole number of a config, or None."""
    value = config.get(name)
    return value if isinstance(value, int) else None
