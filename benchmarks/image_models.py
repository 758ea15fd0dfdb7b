"""Image models of true size through `inflate convert` and `inflate verify`, and the table of what was checked.

For each config a folder with random weights is written (no published weights can be reached from here; structure and
size are what is checked), then the program converts and verifies it, each in a process of its own whose largest
resident set is reported. Models too large for this machine are inflated on the meta device: structure and parameter
count only. Random weights are small normal numbers, so that half precision stays finite.

    python benchmarks/image_models.py CONFIGS --scheme make-a-video -o benchmarks/image_models.json
    python benchmarks/image_models.py --table benchmarks/image_models.json     # the README's table

CONFIGS is a folder with the configs of published checkpoints, by the names in `MODELS`.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

# config, name, dtype, frames, height and width of the sample (None: on the meta device)
MODELS: tuple[tuple[str, str, str, int, int | None], ...] = (
    ("sd15_unet", "Stable Diffusion 1.5", "float32", 4, 32),
    ("sd21_unclip_unet", "Stable Diffusion 2.1 unCLIP", "float32", 4, 32),
    ("sd_x4_upscaler_unet", "Stable Diffusion x4 upscaler", "float32", 2, 64),
    ("karlo_decoder", "Karlo decoder", "float32", 4, 32),
    ("karlo_super_res_first", "Karlo super-resolution", "float32", 2, 64),
    ("kandinsky22_unet", "Kandinsky 2.2", "float32", 2, 32),
    ("sdxl_unet", "Stable Diffusion XL", "bfloat16", 2, 32),
    ("if_i_xl_unet", "DeepFloyd IF I XL", "bfloat16", 2, None),
    ("dit_xl_2_256", "DiT-XL/2", "float32", 4, 32),
    ("pixart_alpha_xl_2_512", "PixArt-alpha XL/2", "float32", 4, 32),
    ("pixart_sigma_xl_2_512", "PixArt-sigma XL/2", "float32", 4, 32),
    ("sd3_medium_transformer", "Stable Diffusion 3 medium", "bfloat16", 4, None),
    ("flux1_dev_transformer", "FLUX.1 dev", "bfloat16", 4, None),
    ("kolors_unet", "Kolors", "bfloat16", 2, None),
    ("sana_600m_transformer", "SANA 0.6B", "float32", 4, 32),
    ("sana_1600m_transformer", "SANA 1.6B", "bfloat16", 4, None),
    ("qwen_image_transformer", "Qwen-Image", "bfloat16", 4, None),
    ("lumina2_transformer", "Lumina-Image 2.0", "bfloat16", 4, None),
    ("z_image_transformer", "Z-Image", "bfloat16", 4, None),
    ("flux2_dev_transformer", "FLUX.2 dev", "bfloat16", 4, None),
    ("flux2_klein_4b_transformer", "FLUX.2 klein 4B", "bfloat16", 4, None),
    ("aura_flow_transformer", "AuraFlow", "bfloat16", 4, None),
    ("hunyuan_dit_1_2_transformer", "Hunyuan-DiT 1.2", "bfloat16", 4, None),
    ("hidream_i1_transformer", "HiDream-I1", "bfloat16", 4, None),
    ("chroma1_hd_transformer", "Chroma1-HD", "bfloat16", 4, None),
)
FOR_TRANSFORMERS = "latte"
CHILD = """
import json, resource, sys
from inflate.cli.app import main
code = main(sys.argv[1:])
print("PEAK", json.dumps({"code": code, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
WRITE = """
import sys, torch
from inflate.checkpoint import read_config
from pathlib import Path
source, target, dtype = sys.argv[1:]
config, kind = read_config(Path(source))
with torch.device("meta"):
    model = kind.from_config(config).to(getattr(torch, dtype))
model.to_empty(device="cpu")
generator = torch.Generator().manual_seed(0)
with torch.no_grad():
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        else:
            tensor.fill_(0 if name.endswith("bias") else 1)
model.save_pretrained(target)
"""


def run(code: str, arguments: list[str]) -> tuple[str, float]:
    """Standard output and seconds of a Python process."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout, time.monotonic() - start


def program(arguments: list[str]) -> dict[str, Any]:
    """What one run of `inflate` printed, how long it took and how much memory it held."""
    text, seconds = run(CHILD, arguments)
    printed, _, last = text.rpartition("PEAK ")
    report = json.loads(last)
    return {"printed": printed, "code": report["code"], "peak_gib": report["peak_kb"] / 2**20, "seconds": seconds}


def check(config: Path, dtype: str, frames: int, size: int | None, scheme: str, scratch: Path) -> dict[str, Any]:
    """One row of the table."""
    if size is None:
        return _on_meta(config, scheme, frames)
    image, video = scratch / "image", scratch / "video"
    run(WRITE, [str(config), str(image), dtype])
    convert = program(["convert", str(image), str(video), "--scheme", scheme, "--frames", str(frames), "--json"])
    shutil.rmtree(image)
    options = ["--frames", str(frames), "--size", str(size), "--dtype", dtype, "--json"]
    verify = program(["verify", str(video), *options])
    shutil.rmtree(video)
    report = json.loads(convert["printed"])["report"]
    outcome = json.loads(verify["printed"])
    return {
        "parameters": report["image_parameters"],
        "new_parameters": report["new_parameters"],
        "scheme": scheme,
        "dtype": dtype,
        "frames": frames,
        "size": size,
        "checked": "convert, verify",
        "equal": outcome["equal"],
        "sentence": outcome["sentence"],
        "convert_seconds": round(convert["seconds"], 1),
        "convert_peak_gib": round(convert["peak_gib"], 2),
        "verify_seconds": round(verify["seconds"], 1),
        "verify_peak_gib": round(verify["peak_gib"], 2),
    }


def _on_meta(config: Path, scheme: str, frames: int) -> dict[str, Any]:
    from inflate.checkpoint import read_config
    from inflate.inflater import meta_image_model, report

    values, kind = read_config(config)
    what = report(meta_image_model(kind, values), scheme, frames)
    return {
        "parameters": what.image_parameters,
        "new_parameters": what.new_parameters,
        "scheme": scheme,
        "checked": "structure",
        "frames": frames,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| image model | parameters | scheme, new parameters | checked at true size | peak memory |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if row["checked"] == "structure":
            checked, memory = "structure and parameter count (meta device)", "none"
        else:
            how = "bit for bit equal" if row["equal"] else row["sentence"]
            checked = f"`convert`, `verify`: {how}, {row['frames']} frames of {row['size']}², {row['dtype']}"
            memory = f"{row['convert_peak_gib']:.1f}, {row['verify_peak_gib']:.1f} GiB"
        added = f"`{row['scheme']}`, {row['new_parameters'] / 1e6:,.0f}M"
        lines.append(f"| {name} | {row['parameters']:,} | {added} | {checked} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    """Check what was asked for and add it to the file, or print the file's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="?", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of configs; all by default.")
    parser.add_argument("--scheme", default="make-a-video", help=f"For UNets; transformers take {FOR_TRANSFORMERS}.")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/image_models.json"))
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())["models"]))
        return
    if arguments.configs is None:
        parser.error("name the folder of configs, or --table FILE")
    known = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"models": {}}
    for config, name, dtype, frames, size in MODELS:
        if arguments.only and config not in arguments.only:
            continue
        path = arguments.configs / f"{config}.json"
        kind = json.loads(path.read_text())["_class_name"]
        scheme = arguments.scheme if kind.startswith("UNet") else FOR_TRANSFORMERS
        with tempfile.TemporaryDirectory() as scratch:
            known["models"][name] = check(path, dtype, frames, size, scheme, Path(scratch))
        print(name, json.dumps(known["models"][name]), flush=True)
        known.update(date=str(date.today()), machine=platform.machine(), python=platform.python_version())
        known["models"] = {title: known["models"][title] for _, title, *_ in MODELS if title in known["models"]}
        arguments.output.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
