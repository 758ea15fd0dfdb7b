"""Stable Diffusion 1.x, 2.x and XL as the decoder: text to frames without a prior, inflated or frame by frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inflate.bases.texts import encode_clip_text, warn_if_cut
from inflate.diffusion.latent_motion import renoised, translated_frames
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.models.decoder import check_fps
from inflate.models.foreign import ForeignDecoderStage, Told, sample_frames
from inflate.models.guided import check_threshold, needs_both
from inflate.models.segments import blend_told, check_segments, on_show
from inflate.models.windows import WindowConfig, windows_of
from inflate.stages import ChainState, OnStep, StageSettings, stage_generator

# Text2Video-Zero, arXiv:2303.13439: pictures move between T' = 881 and T = 941 of 1,000 timesteps.
_MOVE_FROM, _MOVE_TO = 0.1, 0.04  # shares of the steps that come before


@dataclass(frozen=True)
class StableDiffusionConfig(WindowConfig):
    """Of Stable Diffusion as the decoder; as :class:`WindowConfig`.

    ``motion_x``, ``motion_y``: for the scheme text2video-zero, how far the picture moves to the right and down from one
    frame to the next, in pixels of a picture of 512 (the paper's lambda is 12). ``negative_prompt`` is what guidance
    goes away from.
    """

    motion_x: float = 12.0
    motion_y: float = 12.0
    negative_prompt: str = ""


class StableDiffusionDecoderStage(ForeignDecoderStage):
    """D^t of Stable Diffusion: it reads the prompt itself, so the chain has no prior."""

    player: ClassVar[str] = "stable-diffusion"
    defaults = StageSettings(num_inference_steps=25, guidance_scale=7.5)
    needs_embeds: ClassVar[bool] = False
    pictures_at_once: ClassVar[int] = 4
    config_class = StableDiffusionConfig
    config: StableDiffusionConfig

    def embed_size(self) -> int | None:
        """None: it takes no image embeddings."""
        return None

    def told(self, image_embeds: Tensor | None, prompt: str, guided: bool) -> dict[str, Any]:
        """The states of the prompt, and before them with guidance those of the negative prompt."""
        texts = (self.config.negative_prompt, prompt) if guided else (prompt,)
        encoder, tokenizer = self.components["decoder_text_encoder"], self.components["decoder_tokenizer"]
        return {
            "encoder_hidden_states": torch.cat(
                [encode_clip_text(encoder, tokenizer, text).text_hidden_states for text in texts]
            )
        }

    def reads_prompt(self) -> bool:
        """It reads nothing else."""
        return True

    def vae(self) -> Any:
        """The autoencoder, as float32 where it overflows in float16."""
        vae = self.components["vae"]
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(torch.float32)
        return vae

    def draw(self, state: ChainState, video: int, settings: StageSettings, on_step: OnStep) -> Tensor:
        """Latents (1, c, F, h, w) of one video."""
        if not state.prompts:
            raise InputError(
                "Stable Diffusion makes frames from a prompt, and there is none; its networks cannot be told an image "
                "embedding, so varying and animating pictures needs another decoder (Karlo's, Kandinsky's, ours)."
            )
        model = self.components["unet"]
        check_fps(model, state.fps)
        check_segments(state, windows_of(model).size)
        check_threshold(settings, self.vae())
        generator = stage_generator(state.seeds[video], self.name)
        noise = self.first_noise(state, generator)
        with torch.no_grad():
            told = self.told_by_time(state, video, needs_both(settings))

        def step(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            return on_step(video, number, timestep, sample)

        draw = self._draw_moving if _without_training(model) else self._draw
        return draw(told, noise, settings, state.fps, generator, step)

    def told_by_time(self, state: ChainState, video: int, guided: bool) -> Told:
        """As for other decoders; in a transition the states of two texts are mixed."""
        texts = (state.prompts[video], *(one.prompt for one in state.segments))
        told = [self.told(None, text, guided) for text in texts]

        def at(frame: float) -> Mapping[str, Any]:
            number, share = on_show(state, frame / state.fps)
            return told[number] if share == 1 else blend_told(told[number - 1], told[number], share)

        return at if state.segments else told[0]

    def _draw(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
    ) -> Tensor:
        model, scheduler = self.components["unet"], self.components["scheduler"]
        windows = windows_of(model, self.config)
        return sample_frames(model, scheduler, told, noise, settings, fps, generator, on_step, windows)

    def _draw_moving(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        on_step: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Text2Video-Zero: one picture is drawn to T', moved, noised back to T, and all frames go on from there.

        All frames have the first one's noise, so that before T they are one picture.
        """
        noise = noise[:, :, :1].expand_as(noise)
        late, early = _steps_before(settings.num_inference_steps)
        if early == late:
            raise InputError(
                f"text2video-zero moves its picture between two sampler steps; {settings.num_inference_steps} "
                "are too few, use at least 3"
            )
        at = self._first_frame_at(told, noise[:, :, :1], settings, fps, generator, (late, early))
        shares = [self._alpha_bar(timestep, noise.device) for _, timestep in at]
        motion = (self.config.motion_x / 512, self.config.motion_y / 512)
        moved = translated_frames(at[1][0][:, :, 0], noise.shape[2], motion)
        grain = torch.randn(moved.shape, generator=generator).to(moved)
        start = renoised(moved, shares[1], shares[0], grain)
        start = torch.cat([at[0][0], start[:, :, 1:]], dim=2)

        def step(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            return on_step(number, timestep, start if number == late - 1 else sample)

        return self._draw(told, noise, settings, fps, generator, step)

    def _first_frame_at(
        self,
        told: Told,
        noise: Tensor,
        settings: StageSettings,
        fps: float,
        generator: torch.Generator,
        counts: tuple[int, int],
    ) -> list[tuple[Tensor, int]]:
        """Latents (1, c, 1, h, w) of the first frame after so many steps, and the timestep each is at."""
        kept: dict[int, Tensor] = {}
        timesteps: list[int] = []

        def keep(number: int, timestep: Tensor, sample: Tensor) -> Tensor:
            # The timestep of a step is the one its input is at.
            timesteps.append(int(timestep))
            kept[number + 1] = sample
            if number == max(counts):
                raise _EnoughError
            return sample

        try:
            self._draw(told, noise, settings, fps, generator, keep)
        except _EnoughError:
            pass
        return [(kept[count], timesteps[count]) for count in counts]

    def _alpha_bar(self, timestep: int, device: torch.device) -> Tensor:
        scheduler = self.components["scheduler"]
        known = getattr(scheduler, "alphas_cumprod", None)
        if known is None or float(scheduler.init_noise_sigma) != 1:
            raise InputError(
                "text2video-zero needs a scheduler whose samples keep their variance, which a "
                f"{type(scheduler).__name__}'s do not; put DDIM's config into the pipeline's scheduler folder"
            )
        return known[timestep].to(device)


class StableDiffusionXLDecoderStage(StableDiffusionDecoderStage):
    """D^t of Stable Diffusion XL: two text encoders, and the size of the picture as a condition."""

    player: ClassVar[str] = "stable-diffusion-xl"
    defaults = StageSettings(num_inference_steps=25, guidance_scale=5.0)

    def told(self, image_embeds: Tensor | None, prompt: str, guided: bool) -> dict[str, Any]:
        """As SDXL's pipeline: without a negative prompt, guidance goes away from zeros."""
        encoded = [self._encode(prompt)]
        if guided:
            negative = self.config.negative_prompt
            empty = [torch.zeros_like(part) for part in encoded[0]]
            encoded.insert(0, self._encode(negative) if negative else (empty[0], empty[1]))
        states, pooled = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        side = float(self.frame_size() or 1024)
        time_ids = torch.tensor([[side, side, 0, 0, side, side]], device=states.device).expand(len(states), -1)
        return {
            "encoder_hidden_states": states,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
        }

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        """States (1, T, D1 + D2), the second last of both encoders, and the second's embedding (1, D2)."""
        states, pooled = [], torch.empty(0)
        for suffix in ("", "_2"):
            encoder = self.components[f"decoder_text_encoder{suffix}"]
            tokenizer = self.components[f"decoder_tokenizer{suffix}"]
            limit = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
            warn_if_cut(text, len(tokenizer(text).input_ids), limit)
            tokens = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
            encoded = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
            states.append(encoded.hidden_states[-2])
            pooled = encoded[0]
        return torch.cat(states, dim=-1), pooled


class _EnoughError(Exception):
    """Ends the drawing of the first frame."""


def _without_training(model: Any) -> bool:
    return isinstance(model, InflatedModel) and model.scheme.frames_seen == "first"


def _steps_before(num_inference_steps: int) -> tuple[int, int]:
    """How many of the steps come before T, and before the earlier T' (in time; further down in noise)."""
    late = max(1, round(_MOVE_TO * num_inference_steps))
    return late, min(max(late + 1, round(_MOVE_FROM * num_inference_steps)), num_inference_steps - 1)
