"""Which stages of the chain other people's pipeline folders can play, by the class that their index names."""

from dataclasses import dataclass, field
from typing import Any

from inflate.stages import StageSettings


@dataclass(frozen=True)
class Part:
    """What of a pipeline plays a stage.

    ``player``: its name in ``PLAYERS``, empty for the stage's own class. ``components``: the stage's components -> the
    pipeline's; those in ``optional`` may be missing. ``settings`` where the class's own defaults are not this
    pipeline's. ``config``: what of the stage's configuration the pipeline's index says, under the same name;
    ``values``: what of it follows from the pipeline's class.
    """

    player: str
    components: dict[str, str]
    optional: tuple[str, ...] = ()
    settings: StageSettings | None = None
    config: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


_KARLO_DECODER = Part(
    "karlo",
    {
        "unet": "decoder",
        "scheduler": "decoder_scheduler",
        "text_proj": "text_proj",
        "decoder_text_encoder": "text_encoder",
        "decoder_tokenizer": "tokenizer",
    },
)
# Karlo's super-resolution is a stage as ours: bicubic low resolution after the noise, another network at the last step.
_KARLO_SUPER_RESOLUTION = Part(
    "",
    {"sr_unet": "super_res_first", "sr_last_unet": "super_res_last", "sr_scheduler": "super_res_scheduler"},
    settings=StageSettings(num_inference_steps=7),
)
_KANDINSKY_PRIOR = Part(
    "unclip",
    {
        "text_encoder": "text_encoder",
        "tokenizer": "tokenizer",
        "prior": "prior",
        "prior_scheduler": "scheduler",
        "image_encoder": "image_encoder",
        "image_processor": "image_processor",
    },
    optional=("image_encoder", "image_processor"),
)
_KANDINSKY_DECODER = {"unet": "unet", "scheduler": "scheduler", "vae": "movq", "image_encoder": "image_encoder"}

_STABLE_DIFFUSION = {
    "unet": "unet",
    "scheduler": "scheduler",
    "vae": "vae",
    "decoder_text_encoder": "text_encoder",
    "decoder_tokenizer": "tokenizer",
}

_SECOND_TEXT = {"decoder_text_encoder_2": "text_encoder_2", "decoder_tokenizer_2": "tokenizer_2"}
_TRANSFORMER = {"unet": "transformer", "scheduler": "scheduler", "vae": "vae"}
_PIXART = _TRANSFORMER | {"decoder_text_encoder": "text_encoder", "decoder_tokenizer": "tokenizer"}
_THIRD_TEXT = {"decoder_text_encoder_3": "text_encoder_3", "decoder_tokenizer_3": "tokenizer_3"}
_UNCONDITIONAL = Part("unconditional", {"unet": "unet", "scheduler": "scheduler"})

# Class of the pipeline -> stage -> the part.
PIPELINES: dict[str, dict[str, Part]] = {
    "UnCLIPPipeline": {
        "prior": Part(
            "unclip",
            {
                "text_encoder": "text_encoder",
                "tokenizer": "tokenizer",
                "prior": "prior",
                "prior_scheduler": "prior_scheduler",
            },
        ),
        "decoder": _KARLO_DECODER,
        "super_resolution": _KARLO_SUPER_RESOLUTION,
    },
    "UnCLIPImageVariationPipeline": {"decoder": _KARLO_DECODER, "super_resolution": _KARLO_SUPER_RESOLUTION},
    "KandinskyPriorPipeline": {"prior": _KANDINSKY_PRIOR},
    "KandinskyV22PriorPipeline": {"prior": _KANDINSKY_PRIOR},
    "KandinskyPipeline": {
        "decoder": Part(
            "kandinsky",
            _KANDINSKY_DECODER | {"decoder_text_encoder": "text_encoder", "decoder_tokenizer": "tokenizer"},
            optional=("image_encoder",),
        )
    },
    "KandinskyV22Pipeline": {"decoder": Part("kandinsky", _KANDINSKY_DECODER, ("image_encoder",))},
    "StableDiffusionPipeline": {"decoder": Part("stable-diffusion", _STABLE_DIFFUSION)},
    "StableDiffusionXLPipeline": {
        "decoder": Part(
            "stable-diffusion-xl",
            _STABLE_DIFFUSION | _SECOND_TEXT,
            config=("force_zeros_for_empty_prompt",),
        )
    },
    "PixArtAlphaPipeline": {"decoder": Part("pixart", _PIXART, values={"max_sequence_length": 120})},
    "PixArtSigmaPipeline": {"decoder": Part("pixart", _PIXART, values={"max_sequence_length": 300})},
    "SanaPipeline": {"decoder": Part("sana", _PIXART)},
    "StableDiffusion3Pipeline": {
        "decoder": Part("sd3", _PIXART | _SECOND_TEXT | _THIRD_TEXT, optional=tuple(_THIRD_TEXT))
    },
    "FluxPipeline": {"decoder": Part("flux", _PIXART | _SECOND_TEXT)},
    "DiTPipeline": {"decoder": Part("dit", _TRANSFORMER, config=("id2label",))},
    "DDPMPipeline": {"decoder": _UNCONDITIONAL},
    "DDIMPipeline": {"decoder": _UNCONDITIONAL},
    "StableDiffusionUpscalePipeline": {
        "upscaler": Part(
            "stable-diffusion-x4",
            {
                f"upscaler_{name}": name
                for name in ("unet", "scheduler", "low_res_scheduler", "vae", "text_encoder", "tokenizer")
            },
            config=("max_noise_level",),
        )
    },
}
