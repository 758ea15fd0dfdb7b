"""What fine-tuning emoji-sd on the emoji clips reached: held-out loss by noise level, motion, and diffusers' pixels.

    python benchmarks/emoji_sd_video.py RUN [RUN …]

Each RUN is a finished run of `inflate finetune recipes/emoji-sd/video.toml --scheme SCHEME -o RUN`. Rows go into
``emoji_sd_video.json`` beside this file, by scheme. A run with motion modules is exported as a MotionAdapter, and
diffusers' AnimateDiffPipeline draws one clip with the same weights and noise as ours.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, StableDiffusionPipeline

import inflate
from inflate.bases import open_base
from inflate.bases.conditioner import joined
from inflate.checkpoint.formats.exporting import export_motion
from inflate.models.foreign import sample_frames
from inflate.stages import StageSettings

RESULTS = Path(__file__).with_suffix(".json")
STEPS, SCALE, PROMPT = 10, 2.0, "party popper"


def losses(run: Path) -> dict[str, Any]:
    """The last held-out losses of a run, by noise level."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "validation_loss" in line][-1]
    levels = sorted(float(name.removeprefix("validation_")) for name in last if name.startswith("validation_0"))
    table = {level: (last[f"image_model_{level}"], last[f"validation_{level}"]) for level in levels}
    return {
        "updates": last["update"],
        "image_model_loss": last["image_model_loss"],
        "validation_loss": last["validation_loss"],
        "by_level": {str(level): {"image_model": one, "video_model": other} for level, (one, other) in table.items()},
        "lower_at": sum(other < one for one, other in table.values()),
        "levels": len(table),
    }


def motion(run: Path) -> dict[str, float]:
    """Motion of the run's final samples over that of the real clips beside them."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [line for line in lines if line.get("sample_motion") is not None]
    facts = found[-1] if found else json.loads((run / "diagnosis.json").read_text()).get("facts", {})
    return {name: facts[name] for name in ("sample_motion", "data_motion") if name in facts}


def compare_with_diffusers(export: Path) -> float:
    """The largest difference of a pixel in [0, 1] between diffusers' AnimateDiffPipeline and ours."""
    base = open_base(export)
    video_model = inflate.load(export / "unet")
    noise = torch.randn(1, base.autoencoder().channels, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    pipeline = StableDiffusionPipeline.from_pretrained(export, local_files_only=True)
    conditioner = base.conditioner()
    conditioner.load(torch.device("cpu"), torch.float32)
    told = joined(conditioner.unconditional(1), conditioner.encode([PROMPT]))
    arguments = conditioner.arguments(told, 64, 64)
    settings = StageSettings(num_inference_steps=STEPS, guidance_scale=SCALE)
    latents = sample_frames(video_model, pipeline.scheduler, arguments, noise, settings)
    autoencoder = base.autoencoder()
    autoencoder.load(torch.device("cpu"), torch.float32)
    ours = autoencoder.decode(latents[0].transpose(0, 1)).clamp(-1, 1) / 2 + 0.5
    with tempfile.TemporaryDirectory() as folder:
        export_motion(export, Path(folder) / "adapter", "motion-adapter")
        adapter = MotionAdapter.from_pretrained(Path(folder) / "adapter", local_files_only=True)
        theirs = AnimateDiffPipeline(
            vae=pipeline.vae,
            text_encoder=pipeline.text_encoder,
            tokenizer=pipeline.tokenizer,
            unet=pipeline.unet,
            motion_adapter=adapter,
            scheduler=pipeline.scheduler,
        )
        theirs.set_progress_bar_config(disable=True)
        made = theirs(
            PROMPT, num_frames=16, height=64, width=64, latents=noise, num_inference_steps=STEPS, guidance_scale=SCALE,
            output_type="np",
        ).frames[0]  # fmt: skip
    return float(np.abs(np.asarray(made) - ours.permute(0, 2, 3, 1).numpy()).max())


def main() -> None:
    """Measure each run and keep its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for run in parser.parse_args().runs:
        recipe = json.loads((run / "recipe.json").read_text())
        row: dict[str, Any] = losses(run) | motion(run)
        video_model = inflate.load(run / "export" / "unet")
        row["temporal_parameters"] = sum(p.numel() for p in video_model.temporal_parameters())
        if video_model.scheme.field("motion_modules"):
            row["largest_difference_from_diffusers"] = compare_with_diffusers(run / "export")
        kept[recipe["options"]["scheme"]] = row
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
        print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
