"""emoji-sd on disk: the folder of a diffusers ``StableDiffusionPipeline``, float16, without a safety checker."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from emoji_family.text import write_text_encoder
from inflate.components import read_whole
from inflate.configs import read_object
from inflate.errors import InputError, a
from inflate.train.export import save_half
from inflate.train.noising import SCHEDULE

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def scheduler() -> DDIMScheduler:
    """DDIM from the last timestep on, where hardly any signal is left, for a network that predicts v."""
    return DDIMScheduler(
        **SCHEDULE, clip_sample=False, set_alpha_to_one=True, steps_offset=1, timestep_spacing="trailing"
    )


def write_pipeline(
    folder: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: Path, vae: Path
) -> None:
    """Write the pipeline; the autoencoder's and tokenizer's files are copied.

    Args:
        folder: made if missing; files of the same names are replaced.
        unet: reads ``encoder_hidden_states`` alone.
        text_encoder: whose states it reads.
        tokenizer: folder of :func:`emoji_family.text.write_tokenizer`.
        vae: folder of an AutoencoderKL in float16.

    Raises:
        InputError: there is no autoencoder or tokenizer in those folders.
    """
    for source, name in ((vae, "diffusion_pytorch_model.safetensors"), (tokenizer, "vocab.json")):
        if not (source / name).is_file():
            raise InputError(f"{source} has no {name}; train it first (recipes/emoji-sd).")
    save_half(unet, folder / "unet")
    write_text_encoder(text_encoder, folder / "text_encoder", torch.float16)
    scheduler().save_config(folder / "scheduler")
    for source, target, names in (
        (tokenizer, "tokenizer", _TOKENIZER_FILES),
        (vae, "vae", ("config.json", "diffusion_pytorch_model.safetensors")),
    ):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, folder / target / name)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def read_pipeline(folder: str | Path, device: str = "cpu") -> StableDiffusionPipeline:
    """The pipeline in float32, as diffusers opens it; nothing is downloaded."""
    if not (Path(folder) / "model_index.json").is_file():
        raise InputError(f"{folder} has no model_index.json; it is no pipeline's folder.")
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, torch.float32)


def read_vae(folder: str | Path, device: torch.device) -> Any:
    """An AutoencoderKL or AutoencoderDC by its config, frozen, float32."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json; it is no autoencoder's folder.")
    name = str(read_object(path).get("_class_name"))
    kinds: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderDC": diffusers.AutoencoderDC}
    if name not in kinds:
        raise InputError(f"{path} is of {a(name)}; latents come from one of {', '.join(kinds)}.")
    vae = read_whole(kinds[name], Path(folder), {"torch_dtype": torch.float32})
    return vae.to(device).eval().requires_grad_(False)
