"""The prior P: CLIP text embedding -> CLIP image embedding by diffusion (unCLIP, arXiv:2204.06125, section 2.2).

diffusers' ``PriorTransformer`` predicts the clean embedding itself, normalised by the statistics it carries.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.bases.clip import EncodedText, TextImageEncoder
from inflate.bases.texts import warn_if_cut
from inflate.diffusion.guidance import Guidance
from inflate.errors import InputError, a
from inflate.sampling.denoiser import Denoiser
from inflate.sampling.loop import Generators, OnSample, denoise
from inflate.sampling.noise import draw_noise
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings, stage_generator


def prior_sample(
    prior: Any,
    scheduler: Any,
    text_embeds: Tensor,
    text_hidden_states: Tensor,
    mask: Tensor,
    guidance_scale: float,
    num_inference_steps: int,
    generator: Generators = None,
    null_text: EncodedText | None = None,
    on_step: OnSample | None = None,
    unit_norm: bool = True,
) -> Tensor:
    """Draw image embeddings for encoded prompts.

    Args:
        prior: a diffusers ``PriorTransformer``.
        scheduler: a diffusers scheduler with ``prediction_type="sample"``, such as ``UnCLIPScheduler``.
        text_embeds: (B, D), unit norm.
        text_hidden_states: (B, T, D).
        mask: (B, T) bool, True where a token counts.
        guidance_scale: 1 evaluates the prompts alone; else uncond + g * (cond - uncond).
        num_inference_steps: steps of the scheduler.
        generator: one, or one per prompt.
        null_text: the encoded empty prompt (batch 1), as training drops captions; ``InputError`` where a
            ``guidance_scale`` other than 1 lacks it.
        on_step: called with (step, timestep, embeddings); what it returns replaces the embeddings.
        unit_norm: bring the embeddings to norm 1; False leaves them as the prior makes them.

    Returns:
        (B, D) float32.
    """
    batch, device = len(text_embeds), text_embeds.device
    guided = guidance_scale != 1
    if guided:
        if null_text is None:
            raise InputError(f"guidance_scale {guidance_scale} needs null_text, the encoded empty prompt.")
        text_embeds = torch.cat([null_text.text_embeds.expand(batch, -1), text_embeds])
        text_hidden_states = torch.cat([null_text.text_hidden_states.expand(batch, -1, -1), text_hidden_states])
        mask = torch.cat([null_text.mask.expand(batch, -1), mask])
    conditioning = {
        "proj_embedding": text_embeds,
        "encoder_hidden_states": text_hidden_states,
        "attention_mask": mask,
    }

    def network(sample: Tensor, timestep: Tensor, **told: Any) -> Any:
        return SimpleNamespace(sample=prior(sample, timestep, **told).predicted_image_embedding)

    predict = Denoiser(prior, scheduler, conditioning, Guidance(guidance_scale), network=network)
    with torch.no_grad():
        noise = draw_noise((batch, prior.config.embedding_dim), generator, device)
        normalised = denoise(scheduler, predict, noise, num_inference_steps, generator, on_step)
        embeds = prior.post_process_latents(normalised).float()
    return functional.normalize(embeds, dim=-1) if unit_norm else embeds


class PriorStage(ComponentStage):
    """P with its text encoder: prompts in, image embeddings out."""

    name: ClassVar[str] = "prior"
    folders: ClassVar[dict[str, str]] = {"text_encoder": "clip"}
    defaults = StageSettings(num_inference_steps=10, guidance_scale=1.0)
    unit_norm: ClassVar[bool] = True  # of the embeddings it makes
    image_roles: ClassVar[tuple[str, ...]] = ("text_encoder",)  # the components that embed_pictures needs

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The text encoder is open_clip's; the rest diffusers'."""
        if role != "text_encoder":
            return super().read(role, folder, library, class_name, dtype)
        if (library, class_name) != ("open_clip", "CLIP"):
            raise InputError(f"{folder} is {a(library)}.{class_name}; the text encoder must be open_clip's CLIP.")
        return TextImageEncoder.load(folder, dtype=dtype)

    def write(self, component: Any, folder: Path) -> list[str]:
        """As :meth:`read`."""
        if not isinstance(component, TextImageEncoder):
            return super().write(component, folder)
        component.save(folder)
        return ["open_clip", "CLIP"]

    def done(self, state: ChainState) -> bool:
        """Whether there are image embeddings already, or frames, which need none any more."""
        return state.image_embeds is not None or state.frames is not None

    def work(self, state: ChainState, settings: StageSettings) -> float:
        """One evaluation per step and prompt."""
        return len(state.prompts) * (1 + len(state.segments)) * settings.num_inference_steps * settings.cost

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        """Fill in ``image_embeds``; prompts one by one, so that none depends on its company even in the last bit."""
        prior, scheduler = self.components["prior"], self.components["prior_scheduler"]
        rounds = 1 + len(state.segments)

        def embed(prompt: str, video: int, number: int) -> Tensor:
            text = self.encode_text(prompt)
            return prior_sample(
                prior,
                scheduler,
                text.text_embeds,
                text.text_hidden_states,
                text.mask,
                guidance_scale=settings.guidance_scale,
                num_inference_steps=settings.num_inference_steps,
                # A video's segments start from one noise, so that they differ by what their prompts say.
                generator=stage_generator(state.seeds[video], self.name),
                null_text=null_text,
                on_step=lambda step, timestep, sample: on_step(
                    video, (number * settings.num_inference_steps + step) // rounds, timestep, sample
                ),
                unit_norm=self.unit_norm,
            )

        with torch.no_grad():
            null_text = self.encode_text("")
            embeds = [embed(prompt, video, 0) for video, prompt in enumerate(state.prompts)]
            segments = tuple(
                replace(one, image_embeds=torch.cat([embed(one.prompt, video, number) for video in range(len(embeds))]))
                for number, one in enumerate(state.segments, 1)
            )
        return replace(state, image_embeds=torch.cat(embeds), segments=segments)

    def embed_size(self) -> int | None:
        """Numbers in an image embedding, known without reading weights; None where no config says it."""
        return self.component_config("prior").get("embedding_dim")

    def encode_text(self, prompt: str) -> EncodedText:
        """One prompt (batch 1) as the prior reads it; warns of one that is cut."""
        encoder: TextImageEncoder = self.components["text_encoder"]
        length, limit = len(encoder.tokenizer.encode(prompt)) + 2, encoder.config.context_length
        warn_if_cut(prompt, length, limit)
        return encoder.encode_text([prompt])

    def embed_pictures(self, pixels: Tensor) -> Tensor:
        """Image embeddings (N, D) of pictures (N, 3, H, W) in [-1, 1], of the norm that the decoder knows."""
        embeds = self.components["text_encoder"].encode_image(pixels)
        return functional.normalize(embeds.float(), dim=-1)
