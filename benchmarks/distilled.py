"""Each stage of a family, distilled to 8, 4, 2 and 1 steps, beside its teacher at 64 steps of the best solver.

`inflate distill recipes/emoji/*-distilled.toml` makes the students. Every stage has its own figure, on the same things
and seeds for all: P the cosine of made and true image embeddings, D^t the things that are found again (retrieval, with
the teacher's P), the others PSNR on clips of the test split. Figures are added to one JSON, so parts can be run apart:

    python benchmarks/distilled.py --data data/fluent-emoji --stage decoder --steps 8
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from inflate.cli.evaluate.family import Family, read_things
from inflate.components import read_diffusers_component
from inflate.evaluate.family import evaluate_retrieval
from inflate.evaluate.features import EfficientNetFeatures
from inflate.evaluate.interpolation import evaluate_interpolation
from inflate.evaluate.methods import interpolator, upscaler, without_component
from inflate.evaluate.super_resolution import evaluate_super_resolution
from inflate.schedulers import SCHEDULERS
from inflate.stages import StageSettings

TEACHER_STEPS = 64
RESULTS = Path(__file__).with_suffix(".json")
# stage -> its recipe's name, and role -> folder below a phase's export
PARTS: dict[str, tuple[str, dict[str, str]]] = {
    "prior": ("prior", {"prior": "prior", "prior_scheduler": "student_scheduler"}),
    "decoder": ("video-decoder", {"unet": "unet", "scheduler": "student_scheduler"}),
    "interpolation": ("interpolation", {"interpolation_unet": "interpolation_unet", "scheduler": "student_scheduler"}),
    "super_resolution": ("sr-video", {"sr_unet": "unet", "sr_scheduler": "student_scheduler"}),
    "upscaler": ("upscaler", {"upscaler_unet": "unet", "upscaler_scheduler": "student_scheduler"}),
}


def put_student(stage: Any, name: str, runs: Path, steps: int) -> None:
    """Give a loaded stage the student's network and scheduler."""
    recipe, roles = PARTS[name]
    export = runs / f"emoji-{recipe}-distilled" / str(steps) / "export"
    for role, folder in roles.items():
        if folder == "student_scheduler":
            config = json.loads((export / folder / "scheduler_config.json").read_text(encoding="utf-8"))
            class_name = config["_class_name"]
            library = "inflate" if class_name in SCHEDULERS else "diffusers"
            stage.components[role] = read_diffusers_component(export / folder, library, class_name, torch.float32)
        else:
            _, class_name = stage.index[role]
            network = stage.read(role, export / folder, *stage.index[role], torch.float32)
            stage.components[role] = network.to(stage.components[role].device).eval()


def figure_of(name: str, family: Family, stage: Any, settings: StageSettings, arguments: argparse.Namespace) -> float:
    """The stage's own figure, higher is better."""
    measure: dict[str, Callable[..., float]] = {
        "prior": prior_figure,
        "decoder": decoder_figure,
        "interpolation": interpolation_figure,
        "super_resolution": enlargement_figure,
        "upscaler": enlargement_figure,
    }
    return measure[name](family, stage, settings, arguments)


def prior_figure(family: Family, stage: Any, settings: StageSettings, arguments: argparse.Namespace) -> float:
    """Mean cosine of made and true embeddings of stills that were prompted."""
    from inflate.models.prior import prior_sample

    things = read_things(arguments.data, 64, arguments.split, True)
    names = sorted(things.names(arguments.split))[: arguments.prompts]
    true = stage.embed_pictures(things.stills_of(names) * 2 - 1)
    made = []
    for number, name in enumerate(names):
        text = stage.encode_text(things.caption(name))
        made.append(
            prior_sample(
                stage.components["prior"],
                stage.components["prior_scheduler"],
                text.text_embeds,
                text.text_hidden_states,
                text.mask,
                1.0,
                settings.num_inference_steps,
                torch.Generator().manual_seed(number),
            )
        )
    return float(functional.cosine_similarity(torch.cat(made), true).mean())


def decoder_figure(family: Family, stage: Any, settings: StageSettings, arguments: argparse.Namespace) -> float:
    """How many prompted things are within the 5 nearest stills of the middle frame."""
    things = read_things(arguments.data, 64, "train", True)
    family.steps = {"decoder": settings.num_inference_steps}
    result = evaluate_retrieval(family.generator(things), things, EfficientNetFeatures(), prompts=arguments.prompts)
    return float(result.report.score.top_k)


def interpolation_figure(family: Family, stage: Any, settings: StageSettings, arguments: argparse.Namespace) -> float:
    """PSNR of new frames at skip 5, of the diffusion network alone."""
    plain = without_component(stage, "frame_decoder") if "frame_decoder" in stage.components else stage
    things = read_things(arguments.data, 64, "test", True)
    methods = {"F": interpolator(plain, settings, family.embed())}
    return evaluate_interpolation(methods, things, "test", arguments.clips, 16, 24.0, 5, 4).row("F").psnr


def enlargement_figure(family: Family, stage: Any, settings: StageSettings, arguments: argparse.Namespace) -> float:
    """PSNR over bicubic."""
    things = read_things(arguments.large_data, 256, "test", True)
    methods = {"SR": upscaler(stage, settings)}
    features, scale = EfficientNetFeatures(), stage.config.scale
    report = evaluate_super_resolution(methods, things, features, scale, "test", arguments.clips, 0, 16, 8.0)
    return report.psnr_over_bicubic("SR")


def main() -> None:
    """Measure one stage at one number of steps, and print the table of all so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:emoji", help="the teachers' family")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, required=True, help="as `inflate evaluate` takes it, 64 px")
    parser.add_argument("--large-data", type=Path, help="the same at 256 px; default: --data")
    parser.add_argument("--stage", choices=list(PARTS), required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[TEACHER_STEPS, 8, 4, 2, 1])
    parser.add_argument("--teacher", action="store_true", help="the teacher at these numbers of steps, for comparison")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--split", default="train", help="of the prior's prompts")
    parser.add_argument("--clips", type=int, default=12)
    arguments = parser.parse_args()
    arguments.large_data = arguments.large_data or arguments.data
    for steps in arguments.steps:
        student = steps != TEACHER_STEPS and not arguments.teacher
        family = Family(arguments.model, None, "float32")
        stage: Any = family.stage(arguments.stage)
        if student:
            put_student(stage, arguments.stage, arguments.runs, steps)
        settings = StageSettings(**(asdict(family.settings(stage, steps)) | {"num_inference_steps": steps}))
        begun = time.monotonic()
        figure = figure_of(arguments.stage, family, stage, settings, arguments)
        row = {"stage": arguments.stage, "steps": steps, "student": student, "figure": figure, "split": arguments.split}
        row |= {"seconds": round(time.monotonic() - begun, 1), "clips": arguments.clips, "prompts": arguments.prompts}
        rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
        same = ("stage", "steps", "student", "split", "clips", "prompts")
        rows = [one for one in rows if any(one[key] != row[key] for key in same)] + [row]
        RESULTS.write_text(json.dumps(about() | {"rows": rows}, indent=1) + "\n")
        print(row, flush=True)


def about() -> dict[str, str]:
    """When and where."""
    return {"date": date.today().isoformat(), "machine": platform.processor() or platform.machine()}


if __name__ == "__main__":
    main()
