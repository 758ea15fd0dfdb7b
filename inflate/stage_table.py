"""The lazy table of the chain's stages, and of other people's networks that can play them: names only, no imports."""

from dataclasses import dataclass

from inflate.errors import InputError, nearest


@dataclass(frozen=True)
class StageEntry:
    """A row of the table: where the class is, which components of a folder it needs, and which it may have."""

    target: str  # "module:Class"
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


# In the order of the chain.
STAGES: dict[str, StageEntry] = {
    "prior": StageEntry("inflate.models.prior:PriorStage", ("text_encoder", "prior", "prior_scheduler")),
    "decoder": StageEntry("inflate.models.decoder:DecoderStage", ("unet", "scheduler"), ("vae",)),
    "interpolation": StageEntry(
        "interp.stage:InterpolationStage", ("interpolation_unet",), ("scheduler", "vae", "frame_decoder")
    ),
    "super_resolution": StageEntry(
        "superres.spatiotemporal:SpatiotemporalStage", ("sr_unet", "sr_scheduler"), ("sr_last_unet",)
    ),
    "upscaler": StageEntry("superres.spatial:SpatialStage", ("upscaler_unet", "upscaler_scheduler")),
}

# Other people's networks that can play a stage: stage -> player -> where it is. A cascade's index names them in
# "stage_players"; a stage it does not name there is played by its class in STAGES.
_UPSCALER = ("unet", "scheduler", "low_res_scheduler", "vae", "text_encoder", "tokenizer")
_READS_TEXT = ("unet", "scheduler", "vae", "decoder_text_encoder", "decoder_tokenizer")
_READS_TEXTS = (*_READS_TEXT, "decoder_text_encoder_2", "decoder_tokenizer_2")
PLAYERS: dict[str, dict[str, StageEntry]] = {
    "prior": {
        "unclip": StageEntry(
            "inflate.models.unclip:UnclipPriorStage",
            ("text_encoder", "tokenizer", "prior", "prior_scheduler"),
            ("image_encoder", "image_processor"),
        )
    },
    "decoder": {
        "karlo": StageEntry(
            "inflate.models.karlo:KarloDecoderStage",
            ("unet", "scheduler", "text_proj", "decoder_text_encoder", "decoder_tokenizer"),
        ),
        "stable-diffusion": StageEntry(
            "inflate.models.stable_diffusion:StableDiffusionDecoderStage",
            _READS_TEXT,
        ),
        "stable-diffusion-xl": StageEntry(
            "inflate.models.stable_diffusion:StableDiffusionXLDecoderStage",
            _READS_TEXTS,
        ),
        "pixart": StageEntry("inflate.models.transformers:PixArtDecoderStage", _READS_TEXT),
        "sana": StageEntry("inflate.models.transformers:SanaDecoderStage", _READS_TEXT),
        "sd3": StageEntry(
            "inflate.models.transformers:StableDiffusion3DecoderStage",
            _READS_TEXTS,
            ("decoder_text_encoder_3", "decoder_tokenizer_3"),
        ),
        "flux": StageEntry("inflate.models.transformers:FluxDecoderStage", _READS_TEXTS),
        "dit": StageEntry("inflate.models.transformers:LabelDecoderStage", ("unet", "scheduler", "vae")),
        "unconditional": StageEntry("inflate.models.unconditional:UnconditionalDecoderStage", ("unet", "scheduler")),
        "kandinsky": StageEntry(
            "inflate.models.kandinsky:KandinskyDecoderStage",
            ("unet", "scheduler", "vae"),
            ("image_encoder", "decoder_text_encoder", "decoder_tokenizer"),
        ),
    },
    "upscaler": {
        "stable-diffusion-x4": StageEntry(
            "superres.stable_diffusion_x4:StableDiffusionX4Stage", tuple(f"upscaler_{part}" for part in _UPSCALER)
        )
    },
}


def stage_entry(name: str, player: str = "") -> StageEntry:
    """The row of a stage, or of a player of it.

    Raises:
        InputError: no such stage or player; the nearest name is offered.
    """
    if name not in STAGES:
        raise InputError(f"There is no stage {name!r}{nearest(name, list(STAGES))}; known: {', '.join(STAGES)}.")
    players = PLAYERS.get(name, {})
    if player and player not in players:
        known = ", ".join(players) or "none"
        raise InputError(f"No {player!r} plays the stage {name!r}{nearest(player, list(players))}; known: {known}.")
    return players[player] if player else STAGES[name]
