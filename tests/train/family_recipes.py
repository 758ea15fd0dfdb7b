"""A short recipe for every training step of our own families, on the tiny folders that `conftest` writes."""

from pathlib import Path

from inflate.train.recipe import About, DataOptions, Recipe, TrainOptions
from inflate.train.step import TRAIN_STEPS

from .conftest import CLIP, SIZE, SR_UNET, UNET, VAE

# The steps of our own families; `video` and those of emoji-sd have tests of their own, and toys are no steps.
ELSEWHERE = ("video", "autoencoder-kl", "text-encoder", "text-to-image", "toy", "talking-toy")
FAMILY_STEPS = sorted(set(TRAIN_STEPS) - set(ELSEWHERE))
PICTURE_STEPS = ("autoencoder", "clip", "prior", "decoder", "image-super-resolution")
ABOUT = About("a test", "none", "CPU", "seconds", "none")


def family_recipe(step: str, videos: Path, output: Path, options: dict, **changes) -> Recipe:
    settings = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 1,
        "ema_decay": 0.5,
        "log_every": 1,
        "checkpoint_every": 4,
        "sample_every": 0,
    }
    kinds = ("still", "clip") if step in PICTURE_STEPS else ("clip",)
    data = DataOptions(str(videos), SIZE, kinds)
    return Recipe("t", step, ABOUT, data, TrainOptions(**(settings | changes)), options, str(output))


def family_options(step: str, family: Path) -> dict:
    clip, vae = str(family / "clip"), str(family / "vae")
    video = {"clip": clip, "vae": vae, "image_model": str(family / "unet"), "num_frames": 4}
    return {
        "distillation": {
            "of": "video-decoder",
            "method": "progressive",
            "num_inference_steps": 2,
            "guidance_range": [1.0, 4.0],
            "step": video,
        },
        "autoencoder": {"model": VAE},
        "clip": {"model": CLIP},
        "prior": {
            "clip": clip,
            "model": {
                "num_attention_heads": 2,
                "attention_head_dim": 8,
                "num_layers": 1,
                "embedding_dim": 32,
                "num_embeddings": 32,
                "additional_embeddings": 4,
            },
        },
        "decoder": {"clip": clip, "vae": vae, "model": UNET},
        "video-decoder": video,
        "interpolation": {"clip": clip, "vae": vae, "image_model": str(family / "unet"), "init": str(family / "video")},
        "frame-decoder": {
            "vae": vae,
            "num_frames": 4,
            "frames_per_clip": 2,
            "model": {"block_out_channels": [8, 8], "norm_num_groups": 4},
        },
        "image-super-resolution": {"model": SR_UNET, "crop": 16},
        "video-super-resolution": {"image_model": str(family / "sr_unet"), "num_frames": 3},
    }[step]
