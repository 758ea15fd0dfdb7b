"""A tiny pipeline folder of every family that people bring: real classes, published configs, small widths.

``build(family, folder)`` writes one; ``parts_of(family, folder)`` are the parts that must be named beside it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextModel, Gemma2Config, Gemma2Model, T5Config, T5EncoderModel, T5Tokenizer

from tests.cascade import foreign_pipelines as foreign
from tests.cascade.foreign_pipelines import WIDTH, randomized, saved, small_vae, text_encoder, tokenizer
from tests.models.tiny_family import tiny_vae

T5_WIDTH = 2 * WIDTH
SIDE = 16  # px that every folder makes pictures of, Kandinsky's (64) and Karlo's (8) excepted
CLASSES = ("tench, Tinca tinca", "goldfish", "great white shark")
_CONFIGS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "inflater" / "configs")
_DIT: dict[str, Any] = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8}
_PIXART: dict[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 3,  # the embedding of sizes takes a third of the width each
    "attention_head_dim": 8,
    "cross_attention_dim": 24,
    "caption_channels": T5_WIDTH,
}


def config(name: str, **changes: Any) -> dict[str, Any]:
    """A published config with some values changed or added."""
    path = next(folder / f"{name}.json" for folder in _CONFIGS if (folder / f"{name}.json").is_file())
    found = json.loads(path.read_text()) | changes
    return {key: value for key, value in found.items() if not key.startswith("_")}


def t5_tokenizer() -> Any:
    """T5's tokenizer with a vocabulary of letters and one word."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581red", -1.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_encoder(vocabulary: Any, seed: int) -> Any:
    """T5's encoder of one layer."""
    shape = T5Config(
        vocab_size=len(vocabulary),
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return randomized(T5EncoderModel(shape), seed)


def latent_vae(name: str, seed: int) -> Any:
    """An autoencoder of 2 px per latent cell."""
    small: dict[str, Any] = {"block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return randomized(diffusers.AutoencoderKL(**config(name, **blocks, **small, sample_size=16)), seed)


def of_size(folder: Path, side: int = SIDE) -> None:
    """Say in a pipeline's index what size it makes, where its network does not, or is made for a larger one."""
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_inflate": {"height": side, "width": side}}))


def stable_diffusion(folder: Path) -> Any:
    """Stable Diffusion 1.5."""
    return foreign.stable_diffusion(folder)


def stable_diffusion_v(folder: Path) -> Any:
    """Stable Diffusion 2.1, which predicts v."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    small = foreign.CHANNELS | {"cross_attention_dim": WIDTH, "attention_head_dim": [1, 2, 2, 2], "sample_size": 8}
    pipeline = diffusers.StableDiffusionPipeline(
        vae=small_vae("sd_vae", 22),
        text_encoder=text_encoder(vocabulary, 23, CLIPTextModel),
        tokenizer=vocabulary,
        unet=randomized(diffusers.UNet2DConditionModel(**config("sd21_unet", **small)), 24),
        scheduler=diffusers.DDIMScheduler(**config("sd21_scheduler")),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]  # as its documentation says
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    return saved(pipeline, folder)


def stable_diffusion_xl(folder: Path) -> Any:
    """Stable Diffusion XL."""
    return foreign.stable_diffusion_xl(folder)


def pixart(folder: Path) -> Any:
    """PixArt-alpha of the size that reads resolution and aspect ratio."""
    vocabulary = t5_tokenizer()
    pipeline = diffusers.PixArtAlphaPipeline(
        tokenizer=vocabulary,
        text_encoder=t5_encoder(vocabulary, 31),
        vae=small_vae("sd_vae", 32),
        transformer=randomized(
            diffusers.PixArtTransformer2DModel(**config("pixart_alpha_xl_2_512", **_PIXART, sample_size=128)), 33
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(**config("pixart_scheduler")),
    )
    saved(pipeline, folder)
    of_size(folder)
    return pipeline


def pixart_sigma(folder: Path) -> Any:
    """PixArt-sigma."""
    vocabulary = t5_tokenizer()
    pipeline = diffusers.PixArtSigmaPipeline(
        tokenizer=vocabulary,
        text_encoder=t5_encoder(vocabulary, 34),
        vae=small_vae("sdxl_vae", 35),
        transformer=randomized(
            diffusers.PixArtTransformer2DModel(**config("pixart_sigma_xl_2_512", **_PIXART, sample_size=8)), 36
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(**config("pixart_scheduler")),  # pyright: ignore[reportArgumentType]
    )
    return saved(pipeline, folder)


def sana(folder: Path) -> Any:
    """SANA, with a Gemma of one layer."""
    vocabulary = t5_tokenizer()
    shape = Gemma2Config(
        vocab_size=len(vocabulary),
        hidden_size=T5_WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    small = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": T5_WIDTH, "sample_size": 8,
        "in_channels": 4, "out_channels": 4,
    }  # fmt: skip
    pipeline = diffusers.SanaPipeline(
        tokenizer=vocabulary,
        text_encoder=randomized(Gemma2Model(shape), 37),
        vae=randomized(tiny_vae(), 39),
        transformer=randomized(diffusers.SanaTransformer2DModel(**config("sana_600m_transformer", **small)), 38),
        scheduler=diffusers.DPMSolverMultistepScheduler(**config("sana_scheduler")),
    )
    return saved(pipeline, folder)


def sd3(folder: Path, with_t5: bool = True, **scheduler: Any) -> Any:
    """Stable Diffusion 3; its T5 may be absent."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    letters = t5_tokenizer()
    small = _DIT | {"caption_projection_dim": 16, "pos_embed_max_size": 6, "sample_size": 8}
    sizes = {"joint_attention_dim": T5_WIDTH, "pooled_projection_dim": 2 * WIDTH}
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=randomized(
            diffusers.SD3Transformer2DModel(**config("sd3_medium_transformer", **small, **sizes)), 41
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**config("sd3_scheduler", **scheduler)),
        vae=latent_vae("sd3_vae", 42),
        text_encoder=text_encoder(vocabulary, 43),
        tokenizer=vocabulary,
        text_encoder_2=text_encoder(vocabulary, 44),
        tokenizer_2=vocabulary,
        text_encoder_3=t5_encoder(letters, 45) if with_t5 else None,  # pyright: ignore[reportArgumentType]
        tokenizer_3=letters if with_t5 else None,  # pyright: ignore[reportArgumentType]
    )
    return saved(pipeline, folder)


def flux(folder: Path, guidance_embeds: bool = True) -> Any:
    """FLUX.1 dev, or schnell without embedded guidance."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    letters = t5_tokenizer()
    small = _DIT | {"num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (2, 4, 2)}
    sizes = {"joint_attention_dim": T5_WIDTH, "pooled_projection_dim": WIDTH, "guidance_embeds": guidance_embeds}
    steps = {} if guidance_embeds else {"shift": 1.0, "use_dynamic_shifting": False}
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**config("flux1_dev_scheduler", **steps)),
        vae=latent_vae("flux_vae", 51),
        text_encoder=text_encoder(vocabulary, 52, CLIPTextModel),
        tokenizer=vocabulary,
        text_encoder_2=t5_encoder(letters, 53),
        tokenizer_2=letters,
        transformer=randomized(
            diffusers.FluxTransformer2DModel(**config("flux1_dev_transformer", **small, **sizes)), 54
        ),
    )
    saved(pipeline, folder)
    of_size(folder)
    return pipeline


def dit(folder: Path) -> Any:
    """DiT, whose index names the first few classes."""
    pipeline = diffusers.DiTPipeline(
        transformer=randomized(diffusers.DiTTransformer2DModel(**config("dit_xl_2_256", **_DIT, sample_size=8)), 61),
        vae=small_vae("sd_vae", 62),
        scheduler=diffusers.DDIMScheduler(**config("dit_xl_2_scheduler")),  # pyright: ignore[reportArgumentType]
        id2label=dict(enumerate(CLASSES)),
    )
    saved(pipeline, folder)
    path = folder / "model_index.json"
    labels = {str(number): name for number, name in enumerate(CLASSES)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": labels}))
    return pipeline


def karlo(folder: Path) -> Any:
    """Karlo; its image encoder lies beside the folder, as in Karlo's image variations."""
    foreign.image_encoder().save_pretrained(parts_of("karlo", folder)["image_encoder"])
    foreign.image_processor().save_pretrained(parts_of("karlo", folder)["image_processor"])
    return foreign.karlo(folder)


def kandinsky(folder: Path) -> Any:
    """Kandinsky 2.2's decoder; its image encoder lies in the prior's folder beside it."""
    foreign.kandinsky_prior(parts_of("kandinsky", folder)["base"])
    return foreign.kandinsky_22(folder)


def own(folder: Path) -> Any:
    """A family of our own: CLIP, prior, decoder (not inflated) and autoencoder."""
    from tests.models.tiny_family import save_tiny_family, tiny_unet

    return save_tiny_family(folder, tiny_unet())


def unconditional(folder: Path) -> Any:
    """A DDPM of pixels."""
    blocks: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    small: dict[str, Any] = {"block_out_channels": (16, 16), "norm_num_groups": 8, "layers_per_block": 1}
    unet = randomized(diffusers.UNet2DModel(sample_size=SIDE, **small, **blocks, attention_head_dim=8), 71)
    return saved(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()), folder)


BUILDERS: dict[str, Callable[[Path], Any]] = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-v": stable_diffusion_v,
    "stable-diffusion-xl": stable_diffusion_xl,
    "pixart": pixart,
    "pixart-sigma": pixart_sigma,
    "sana": sana,
    "sd3": sd3,
    "flux": flux,
    "dit": dit,
    "karlo": karlo,
    "kandinsky": kandinsky,
    "inflate": own,
    "unconditional": unconditional,
}


def parts_of(family: str, folder: Path) -> dict[str, Path]:
    """What ``open_base`` must be told beside the folder that ``build`` wrote."""
    if family == "kandinsky":
        return {"base": folder.with_name(folder.name + "-prior")}
    if family == "karlo":
        names = ("image_encoder", "image_processor")
        return {name: folder.with_name(f"{folder.name}-{name.replace('_', '-')}") for name in names}
    return {}


def build(family: str, folder: Path) -> Path:
    """Write a tiny pipeline of ``family`` into ``folder``, and beside it what :func:`parts_of` names."""
    torch.manual_seed(0)
    BUILDERS[family](folder)
    return folder
