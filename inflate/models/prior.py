"""The prior P: CLIP text embedding -> CLIP image embedding by diffusion (unCLIP, arXiv:2204.06125, section 2.2).

diffusers' ``PriorTransformer`` predicts the clean embedding itself, normalised by the statistics it carries.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from inflate.errors import InputError
from inflate.models.clip import EncodedText, TextImageEncoder
from inflate.stages import ChainState, ComponentStage, OnStep, StageSettings, denoise, draw_noise, stage_generator


def prior_sample(
    prior: Any,
    scheduler: Any,
    text_embeds: Tensor,
    text_hidden_states: Tensor,
    mask: Tensor,
    guidance_scale: float,
    num_inference_steps: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    null_text: EncodedText | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
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
        null_text: the encoded empty prompt (batch 1), which training puts in place of dropped captions; needed for a
            ``guidance_scale`` other than 1.
        on_step: called with (step, timestep, embeddings); what it returns replaces the embeddings.

    Returns:
        (B, D) float32, unit norm.

    Raises:
        InputError: guidance without ``null_text``.
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
        "proj_embedding": text_embeds.to(prior.dtype),
        "encoder_hidden_states": text_hidden_states.to(prior.dtype),
        "attention_mask": mask,
    }

    def predict(sample: Tensor, timestep: Tensor) -> Tensor:
        inputs = torch.cat([sample, sample]) if guided else sample
        made = prior(inputs.to(prior.dtype), timestep, **conditioning).predicted_image_embedding.float()
        if not guided:
            return made
        unconditional, conditional = made.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    with torch.no_grad():
        noise = draw_noise((batch, prior.config.embedding_dim), generator, device)
        normalised = denoise(scheduler, predict, noise, num_inference_steps, generator, on_step)
        return functional.normalize(prior.post_process_latents(normalised).float(), dim=-1)


class PriorStage(ComponentStage):
    """P with its text encoder: prompts in, image embeddings out."""

    name: ClassVar[str] = "prior"
    folders: ClassVar[dict[str, str]] = {"text_encoder": "clip"}
    defaults = StageSettings(num_inference_steps=10, guidance_scale=1.0)

    def read(self, role: str, folder: Path, library: str, class_name: str, dtype: torch.dtype) -> Any:
        """The text encoder is open_clip's; the rest diffusers'."""
        if role != "text_encoder":
            return super().read(role, folder, library, class_name, dtype)
        if (library, class_name) != ("open_clip", "CLIP"):
            raise InputError(f"{folder} is a {library}.{class_name}; the text encoder must be open_clip's CLIP.")
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
        return len(state.prompts) * settings.num_inference_steps * settings.cost

    def __call__(self, state: ChainState, settings: StageSettings, on_step: OnStep) -> ChainState:
        """Fill in ``image_embeds``; prompts one by one, so that none depends on its company even in the last bit."""
        encoder: TextImageEncoder = self.components["text_encoder"]
        prior, scheduler = self.components["prior"], self.components["prior_scheduler"]
        embeds = []
        with torch.no_grad():
            null_text = encoder.encode_text([""])
            for video, (prompt, seed) in enumerate(zip(state.prompts, state.seeds, strict=True)):
                _warn_if_cut(encoder, prompt)
                text = encoder.encode_text([prompt])
                made = prior_sample(
                    prior,
                    scheduler,
                    text.text_embeds,
                    text.text_hidden_states,
                    text.mask,
                    guidance_scale=settings.guidance_scale,
                    num_inference_steps=settings.num_inference_steps,
                    generator=stage_generator(seed, self.name),
                    null_text=null_text,
                    on_step=lambda step, timestep, sample, video=video: on_step(video, step, timestep, sample),
                )
                embeds.append(made)
        return replace(state, image_embeds=torch.cat(embeds))


def _warn_if_cut(encoder: TextImageEncoder, prompt: str) -> None:
    length, limit = len(encoder.tokenizer.encode(prompt)) + 2, encoder.config.context_length
    if length > limit:
        warnings.warn(
            f"The prompt {prompt[:40]!r}... has {length} tokens; only the first {limit - 1} were read.", stacklevel=2
        )
