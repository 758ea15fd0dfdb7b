"""The table of what people bring: pipelines by class, the parts of each family, and networks without a pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inflate.bases.conditioner import Conditioner
from inflate.bases.conditioners.images import KandinskyConditioner, KarloConditioner, OwnConditioner
from inflate.bases.conditioners.labels import LabelConditioner, NoConditioner
from inflate.bases.conditioners.stable_diffusion import StableDiffusionConditioner, StableDiffusionXLConditioner
from inflate.bases.conditioners.transformers import (
    FluxConditioner,
    PixArtConditioner,
    SanaConditioner,
    StableDiffusion3Conditioner,
)


@dataclass(frozen=True)
class Family:
    """What a family is made of beside its network: ``needs`` it cannot do without, ``takes`` it may have."""

    title: str
    conditioner: type[Conditioner]
    latents: bool = True  # whether it cannot do without an autoencoder
    extra: tuple[str, ...] = ()  # parts that training needs though sampling does without

    @property
    def needs(self) -> tuple[str, ...]:
        """Roles without which nothing can be trained."""
        return ("scheduler", *(("vae",) if self.latents else ()), *self.conditioner.needs, *self.extra)

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles of its parts."""
        return tuple(dict.fromkeys((*self.needs, "vae", *self.conditioner.takes)))


FAMILIES: dict[str, Family] = {
    "stable-diffusion": Family("Stable Diffusion", StableDiffusionConditioner),
    "stable-diffusion-xl": Family("Stable Diffusion XL", StableDiffusionXLConditioner),
    "pixart": Family("PixArt", PixArtConditioner),
    "sana": Family("SANA", SanaConditioner),
    "sd3": Family("Stable Diffusion 3", StableDiffusion3Conditioner),
    "flux": Family("FLUX", FluxConditioner),
    "dit": Family("DiT", LabelConditioner),
    "karlo": Family("Karlo", KarloConditioner, latents=False, extra=("image_encoder",)),
    "kandinsky": Family("Kandinsky", KandinskyConditioner, extra=("image_encoder",)),
    "inflate": Family("a family of ours", OwnConditioner, latents=False),
    "unconditional": Family("an unconditional UNet2DModel", NoConditioner, latents=False),
}


@dataclass(frozen=True)
class Pipeline:
    """A class of pipelines: its family (empty for those that only lend parts), and folders not called by role."""

    family: str
    folders: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


_KARLO_VARIATIONS = {"scheduler": "decoder_scheduler", "image_processor": "feature_extractor"}
PIPELINES: dict[str, Pipeline] = {
    "StableDiffusionPipeline": Pipeline("stable-diffusion"),
    "StableDiffusionXLPipeline": Pipeline("stable-diffusion-xl"),
    "PixArtAlphaPipeline": Pipeline("pixart", options={"max_sequence_length": 120}),
    "PixArtSigmaPipeline": Pipeline("pixart", options={"max_sequence_length": 300}),
    "SanaPipeline": Pipeline("sana"),
    "StableDiffusion3Pipeline": Pipeline("sd3"),
    "FluxPipeline": Pipeline("flux"),
    "DiTPipeline": Pipeline("dit"),
    "UnCLIPPipeline": Pipeline("karlo", {"scheduler": "decoder_scheduler"}),
    "UnCLIPImageVariationPipeline": Pipeline("karlo", _KARLO_VARIATIONS),
    "KandinskyV22Pipeline": Pipeline("kandinsky", {"vae": "movq"}),
    "KandinskyPipeline": Pipeline("kandinsky", {"vae": "movq"}),
    "DDPMPipeline": Pipeline("unconditional"),
    "DDIMPipeline": Pipeline("unconditional"),
    "KandinskyV22PriorPipeline": Pipeline("", {"scheduler": "", "text_encoder": "", "tokenizer": ""}),
    "KandinskyPriorPipeline": Pipeline("", {"scheduler": "", "text_encoder": "", "tokenizer": ""}),
}
# A cascade of ours: its own CLIP, or another family's parts by the name they have beside a prior's.
_OWN = {"text_encoder": "clip"}
_PLAYED = {
    f"{role}{suffix}": f"decoder_{role}{suffix}"
    for role in ("text_encoder", "tokenizer")
    for suffix in ("", "_2", "_3")
}


def cascade_pipeline(index: Mapping[str, Any]) -> Pipeline:
    """What a cascade's folder is, told from its index: our own family's, or that of who plays its decoder."""
    player = (index.get("stage_players") or {}).get("decoder", "")
    options = (index.get("stage_configs") or {}).get("decoder") or {}
    return Pipeline(player, _PLAYED, options) if player in FAMILIES else Pipeline("inflate", _OWN, options)


def family_of(config: Mapping[str, Any]) -> str:
    """The family of a network that comes without a pipeline, told from its config; empty for what is none of them."""
    of_class = {
        "UNet2DModel": "unconditional",
        "DiTTransformer2DModel": "dit",
        "PixArtTransformer2DModel": "pixart",
        "SD3Transformer2DModel": "sd3",
        "FluxTransformer2DModel": "flux",
    }
    name, added, classes = config.get("_class_name"), config.get("addition_embed_type"), config.get("class_embed_type")
    if name == "SanaTransformer2DModel":  # but for Sprint's, which has guidance in its weights
        return "" if config.get("guidance_embeds") else "sana"
    if name != "UNet2DConditionModel":
        return of_class.get(str(name), "")
    if added == "text_time" and config.get("encoder_hid_dim_type"):  # Kolors, which reads ChatGLM's text
        return ""
    if added is not None:
        return {"text_time": "stable-diffusion-xl", "image": "kandinsky", "text_image": "kandinsky"}.get(added, "")
    if classes is not None:
        ours = config.get("projection_class_embeddings_input_dim") == config.get("cross_attention_dim")
        return {"identity": "karlo", "projection": "inflate" if ours else ""}.get(classes, "")
    return "" if config.get("num_class_embeds") else "stable-diffusion"
