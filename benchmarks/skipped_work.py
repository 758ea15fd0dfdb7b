"""What sampling loses and gains by skipping work: features used again (reuse) and steps without guidance (interval).

    python benchmarks/skipped_work.py --data data/fluent-emoji [--prompts 50] [--steps 25] [--output FILE]

Every way draws the same prompts from the same seeds with the bundled family's D^t. Loss is the Fréchet distance in
EfficientNet-Lite0 features of frames and of their change to real training clips, beside the peak signal-to-noise ratio
to the sample without any skipping; gain is processor time over that sample's, all ways taking turns in one run. Without
data only times are taken, of a random UNet of SD 1.5's architecture.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

import inflate
from inflate.cascade import Cascade
from inflate.models.foreign import sample_frames
from inflate.stages import StageSettings

RESULTS = Path(__file__).with_suffix(".json")
WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "reuse 2": {"reuse": 2},
    "reuse 3": {"reuse": 3},
    "interval 0-0.6": {"guidance_interval": (0.0, 0.6)},
    "interval 0.2-0.8": {"guidance_interval": (0.2, 0.8)},
    "reuse 3, 0.2-0.6": {"reuse": 3, "guidance_interval": (0.2, 0.6)},
}


def measured(data: Path, count: int, steps: int, seed: int = 0) -> dict[str, Any]:
    """Loss and gain on the bundled family: D^t's 16 frames at 8 frames a second."""
    from inflate.data.frames import build_frame_cache
    from inflate.evaluate.clip_frechet import Sampling, describe, distances, shrink_to
    from inflate.evaluate.features import EfficientNetFeatures
    from inflate.evaluate.things import find_things

    things, sampling = find_things(build_frame_cache(data, 64)), Sampling(16, 8, 1, 8)
    names, indices = things.choose("train", count, seed), sampling.indices()
    cascade, features = Cascade.from_pretrained("bundled:emoji", device="cpu", keep_loaded=True), EfficientNetFeatures()
    made: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for number, name in enumerate(names):
        embeds = cascade(things.caption(name), 16, 8, _seeded(seed + number), until="prior").image_embeds
        for way, options in WAYS.items():
            start = time.process_time()
            out = cascade(
                None, 16, 8, _seeded(seed + number), steps, until="decoder", image_embeds=embeds, output_type="np",
                **options,
            )  # fmt: skip
            spent[way].append(time.process_time() - start)
            made[way].append(np.round(np.asarray(out.frames)[0] * 255).astype(np.uint8))
        print(f"{number + 1} of {len(names)}", flush=True)
    real = describe([things.clip_frames(name, 8, 16)[indices] for name in names], features, None)
    rows = {}
    for way, clips in made.items():
        errors = [((one / 255 - other / 255) ** 2).mean() for one, other in zip(clips, made["all"], strict=True)]
        shown = describe([shrink_to(clip[indices], 64) for clip in clips], features, None)
        ratios = [one / whole for one, whole in zip(spent[way], spent["all"], strict=True)]
        rows[way] = {
            "time": round(statistics.median(ratios), 3),
            "frechet": round(distances(shown, real)[0], 4),
            "psnr_to_all": None if way == "all" else round(-10 * math.log10(statistics.mean(errors)), 2),
        }
    return {"prompts": len(names), "steps": steps, "ways": rows}


def timed(steps: int, rounds: int = 3) -> dict[str, float]:
    """Processor time over that of all work: a random UNet of SD 1.5's architecture, a quarter as wide."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32, block_out_channels=(80, 160, 320, 320), attention_head_dim=8, cross_attention_dim=192,
        norm_num_groups=16,
    )  # fmt: skip
    model = inflate.inflate(unet, "animatediff-v2", num_frames=8).eval()
    noise, told = torch.randn(1, 4, 8, 32, 32), {"encoder_hidden_states": torch.randn(2, 77, 192)}
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, options in WAYS.items():
            start = time.process_time()
            sample_frames(model, DDIMScheduler(), told, noise, StageSettings(steps, 7.5, **options))
            spent[way].append(time.process_time() - start)
    ratios = {way: [one / all_ for one, all_ in zip(spent[way], spent["all"], strict=True)] for way in WAYS}
    return {way: round(statistics.median(found), 3) for way, found in ratios.items()}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__}
    found["stable_diffusion_times"] = timed(min(asked.steps, 6))
    if asked.data:
        found["emoji"] = measured(asked.data, asked.prompts, asked.steps)
    asked.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
