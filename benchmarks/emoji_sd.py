"""Figures and a picture of emoji-sd: retrieval of the prompted thing, the autoencoder's PSNR, and a contact sheet.

python benchmarks/emoji_sd.py recipes/emoji-sd/weights data/fluent-emoji --json benchmarks/emoji_sd.json
"""

import argparse
import json
import sys
from pathlib import Path

from emoji_family.measure import draw, reconstruction, retrieval
from emoji_family.pipeline import read_pipeline
from inflate.data import FrameCache, build_frame_cache
from inflate.evaluate.features import EfficientNetFeatures
from inflate.evaluate.sheet import contact_sheet, png_bytes
from inflate.evaluate.things import find_things
from inflate.train.sheets import write_rows

SHOWN = (
    "party popper|red heart|pizza|cat face|rocket|birthday cake|soccer ball|sunflower|"
    "grinning face|fire|umbrella|guitar|hamburger|snowman|octopus|crown|"
    "rainbow|panda|light bulb|strawberry|airplane|key|ghost|cactus"
).split("|")


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--split", default="train")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=2.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--pairs", type=Path, help="write drawn beside true pictures here (PNG)")
    parser.add_argument("--sheet", type=Path, help="write 24 prompts' pictures here (PNG)")
    options = parser.parse_args()
    pipeline = read_pipeline(options.pipeline)
    if options.sheet:
        made = draw(pipeline, SHOWN, range(len(SHOWN)), options.steps, options.guidance_scale) * 2 - 1
        write_rows(options.sheet, list(made.split(8)))
    size = int(pipeline.vae.config.sample_size)
    built = (options.data / "frames.bin").is_file()
    things = find_things(FrameCache.open(options.data) if built else build_frame_cache(options.data, size, workers=2))
    result = retrieval(
        pipeline,
        things,
        EfficientNetFeatures(),
        options.split,
        options.prompts,
        options.seed,
        options.steps,
        options.guidance_scale,
        lambda: print(".", end="", file=sys.stderr, flush=True),
    )
    score = result.report.score
    print(
        f"\n{options.split}: the right thing among the {score.top} nearest of {score.gallery} stills "
        f"for {score.top_k} of {score.queries} captions, the nearest for {score.top_1}; "
        f"median rank {score.median_rank:g}"
    )
    for description, ceiling in result.report.ceilings.items():
        print(f"  ceiling, {description}: {ceiling.top_k} of {ceiling.queries}, nearest for {ceiling.top_1}")
    decibels = {split: round(reconstruction(pipeline.vae, things, split), 2) for split in ("train", "test")}
    print(f"autoencoder, stills there and back: {decibels['train']} dB training, {decibels['test']} dB test")
    if options.pairs:
        labels = [f"{prompt.rank} {prompt.caption}" for prompt in result.report.prompts]
        found = [prompt.rank <= score.top for prompt in result.report.prompts]
        options.pairs.write_bytes(png_bytes(contact_sheet(result.generated, result.stills, labels, found, columns=10)))
    if options.json:
        figures = {"steps": options.steps, "guidance_scale": options.guidance_scale, "autoencoder_psnr": decibels}
        options.json.write_text(json.dumps(figures | result.report.as_dict(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
