"""Other people's pipelines in their real structure, at tiny widths: the configs are the published ones, shrunk."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)

WIDTH = 16  # of every embedding
TOKENS = 11  # 77 in real life; diffusers takes a mask of as many tokens as pixels, with its 4 more, for padded
FRAME = 8  # px that Karlo's decoder makes; 64 in real life
CONFIGS = Path(__file__).parent / "configs"
CHANNELS = {"block_out_channels": [16, 16, 16, 16], "norm_num_groups": 8, "layers_per_block": 1}


def published(name: str) -> dict[str, Any]:
    """A config as it was published."""
    return json.loads((CONFIGS / f"{name}.json").read_text())


def config(name: str, **changes: Any) -> dict[str, Any]:
    """A published config with some values changed or added."""
    return {key: value for key, value in (published(name) | changes).items() if key != "_class_name"}


def randomized(model: Any, seed: int) -> Any:
    """Every weight drawn anew, so that nothing is zero or one as at the start of training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def saved(pipeline: Any, folder: Path) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer with a vocabulary of letters and one merge."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "su", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\ns u\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)


def text_encoder(vocabulary: Any, seed: int = 1, kind: type = CLIPTextModelWithProjection) -> Any:
    shape: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    special = {name: getattr(vocabulary, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(vocabulary), "max_position_embeddings": TOKENS, "projection_dim": WIDTH}
    return randomized(kind(CLIPTextConfig(**shape, **sizes, **special)), seed)


def image_encoder(width: int = WIDTH) -> Any:
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return randomized(
        CLIPVisionModelWithProjection(CLIPVisionConfig(**shape, image_size=16, patch_size=8, projection_dim=width)), 2
    )


def image_processor() -> Any:
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def prior(name: str, width: int = WIDTH) -> Any:
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    made = diffusers.PriorTransformer(**config(name, **small, embedding_dim=width, num_embeddings=TOKENS))
    return randomized(made, 3)


def karlo(folder: Path) -> UnCLIPPipeline:
    """Karlo, saved in ``folder``."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    unet = config("karlo_decoder", **CHANNELS, sample_size=FRAME, cross_attention_dim=WIDTH, attention_head_dim=8)
    projection = config("karlo_text_proj", clip_embeddings_dim=WIDTH, time_embed_dim=4 * 16, cross_attention_dim=WIDTH)
    enlargers = [config(f"karlo_super_res_{name}", **CHANNELS, sample_size=4 * FRAME) for name in ("first", "last")]
    pipeline = UnCLIPPipeline(
        prior=prior("karlo_prior"),
        decoder=randomized(diffusers.UNet2DConditionModel(**unet), 4),
        text_encoder=text_encoder(vocabulary),
        tokenizer=vocabulary,
        text_proj=randomized(UnCLIPTextProjModel(**projection), 5),
        super_res_first=randomized(diffusers.UNet2DModel(**enlargers[0]), 6),
        super_res_last=randomized(diffusers.UNet2DModel(**enlargers[1]), 7),
        prior_scheduler=UnCLIPScheduler(**config("karlo_prior_scheduler")),
        decoder_scheduler=UnCLIPScheduler(**config("karlo_decoder_scheduler")),
        super_res_scheduler=UnCLIPScheduler(**config("karlo_super_res_scheduler")),
    )
    return saved(pipeline, folder)


def stable_diffusion_x4(folder: Path) -> Any:
    """Stable Diffusion's x4 upscaler, saved in ``folder``."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    unet = config("sd_x4_upscaler_unet", **CHANNELS, cross_attention_dim=WIDTH, attention_head_dim=2, sample_size=32)
    vae = config("sd_x4_upscaler_vae", block_out_channels=[8, 8, 8], norm_num_groups=4, layers_per_block=1)
    scheduler: Any = diffusers.DDIMScheduler(**config("sd_x4_upscaler_scheduler"))
    pipeline = diffusers.StableDiffusionUpscalePipeline(
        vae=randomized(diffusers.AutoencoderKL(**vae), 8),
        text_encoder=text_encoder(vocabulary, 9, CLIPTextModel),
        tokenizer=vocabulary,
        unet=randomized(diffusers.UNet2DConditionModel(**unet), 10),
        low_res_scheduler=diffusers.DDPMScheduler(**config("sd_x4_upscaler_low_res_scheduler")),
        scheduler=scheduler,
    )
    return saved(pipeline, folder)


def kandinsky_unet(**changes: Any) -> Any:
    """A network of 8 px latents: frames of 64 px."""
    small = {"sample_size": 8, "cross_attention_dim": WIDTH, "encoder_hid_dim": WIDTH, "attention_head_dim": 8}
    unet = config("kandinsky22_unet", **CHANNELS, **(small | changes))
    return randomized(diffusers.UNet2DConditionModel(**unet), 12)


def movq() -> Any:
    small = {"block_out_channels": [32] * 4, "layers_per_block": 1, "num_vq_embeddings": 16}
    made = randomized(diffusers.VQModel(**config("kandinsky_movq", **small)), 13)
    with torch.no_grad():
        made.decoder.conv_out.weight *= 0.1  # most pixels within [-1, 1]
    return made


def kandinsky_prior(folder: Path, width: int = WIDTH) -> Any:
    """The prior pipeline of Kandinsky 2.2, and of 2.1."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    pipeline = diffusers.KandinskyV22PriorPipeline(
        prior=prior("kandinsky22_prior", width),
        image_encoder=image_encoder(width),
        text_encoder=text_encoder(vocabulary, 11),
        tokenizer=vocabulary,
        scheduler=UnCLIPScheduler(**config("kandinsky22_prior_scheduler")),
        image_processor=image_processor(),
    )
    return saved(pipeline, folder)


def kandinsky_22(folder: Path) -> Any:
    """Kandinsky 2.2's decoder pipeline."""
    scheduler = diffusers.DDPMScheduler(**config("kandinsky22_scheduler"))
    return saved(diffusers.KandinskyV22Pipeline(unet=kandinsky_unet(), scheduler=scheduler, movq=movq()), folder)


def kandinsky_21(folder: Path) -> Any:
    """Kandinsky 2.1's decoder pipeline, which reads a text by a multilingual CLIP; diffusers samples it by DDIM."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz", "<mask>"]
    shape = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"vocab_size": len(pieces), "max_position_embeddings": 90}
    unet = kandinsky_unet(
        addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj", encoder_hid_dim=shape["hidden_size"]
    )
    pipeline = diffusers.KandinskyPipeline(
        text_encoder=randomized(MultilingualCLIP(MCLIPConfig(24, WIDTH, **shape, **sizes)), 14),
        tokenizer=XLMRobertaTokenizer(vocab=[(piece, -1.0) for piece in pieces], model_max_length=77),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
        ),
        movq=movq(),
    )
    return saved(pipeline, folder)


ALL_KARLO = """
name = "karlo"
[prior]
from = "karlo"
num_inference_steps = 4
[decoder]
from = "karlo"
num_inference_steps = 3
read_prompt = true
[super_resolution]
from = "karlo"
num_inference_steps = 3
"""


KANDINSKY = """
name = "kandinsky"
[prior]
from = "prior"
num_inference_steps = 4
[decoder]
from = "decoder-VERSION"
num_inference_steps = 3
"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def role_file(folder: Path, text: str) -> Path:
    path = folder / "roles.toml"
    path.write_text(text)
    return path


def assert_same(made: Any, wanted: Any, tolerance: float = 1e-4) -> None:
    """Equal pictures in [0, 1], many of whose pixels are neither black nor white, where clipping would hide errors."""
    within = wanted[(wanted > 0.01) & (wanted < 0.99)]
    assert within.size > 0.25 * wanted.size and within.std() > 0.05
    np.testing.assert_allclose(made, wanted, atol=tolerance)


def stable_diffusion(folder: Path) -> Any:
    """Stable Diffusion 1.5 with DDIM, saved in ``folder``."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    unet = config("sd15_unet", **CHANNELS, cross_attention_dim=WIDTH, attention_head_dim=2, sample_size=8)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=small_vae("sd_vae", 12),
        text_encoder=text_encoder(vocabulary, 13, CLIPTextModel),
        tokenizer=vocabulary,
        unet=randomized(diffusers.UNet2DConditionModel(**unet), 14),
        scheduler=ddim(),
        safety_checker=None,  # pyright: ignore[reportArgumentType]  # as its documentation says
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    return saved(pipeline, folder)


def stable_diffusion_xl(folder: Path) -> Any:
    """Stable Diffusion XL with DDIM, saved in ``folder``."""
    vocabulary = tokenizer(folder.with_name(folder.name + "-vocabulary"))
    channels = {"block_out_channels": [16, 16, 16], "norm_num_groups": 8, "layers_per_block": 1}
    small = {"transformer_layers_per_block": [1, 1, 2], "attention_head_dim": [2, 2, 2], "addition_time_embed_dim": 4}
    sizes = {"cross_attention_dim": 2 * WIDTH, "projection_class_embeddings_input_dim": WIDTH + 24, "sample_size": 8}
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=small_vae("sdxl_vae", 15),
        text_encoder=text_encoder(vocabulary, 16, CLIPTextModel),
        text_encoder_2=text_encoder(vocabulary, 17),
        tokenizer=vocabulary,
        tokenizer_2=vocabulary,
        unet=randomized(diffusers.UNet2DConditionModel(**config("sdxl_unet", **channels, **small, **sizes)), 18),
        scheduler=ddim(),
        add_watermarker=False,
    )
    return saved(pipeline, folder)


def small_vae(name: str, seed: int) -> Any:
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    small = {"block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 16}
    return randomized(diffusers.AutoencoderKL(**config(name, **blocks, **small)), seed)


def ddim() -> Any:
    """With Stable Diffusion's noise levels."""
    noise_levels = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "steps_offset")
    known = {key: value for key, value in config("sd15_scheduler").items() if key in noise_levels}
    return diffusers.DDIMScheduler(**known, clip_sample=False, set_alpha_to_one=False)
