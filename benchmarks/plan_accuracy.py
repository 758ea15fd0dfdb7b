"""What `inflate plan` says of five runs, and what they take: peak memory of the process, and seconds of an update.

    python benchmarks/plan_accuracy.py [--only NAME] [-o benchmarks/plan_accuracy.json]

Each setting: the plan measures its small step in a process of its own (as the command does), the run itself does three
updates in another (forward, backward, clipping, AdamW, EMA on random weights), then the small step is measured again.
Speed on a shared machine changes within seconds; the run stands between the two small steps and is compared with the
mean of what they predict, in wall-clock and in processor time.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel

from inflate.train.measuring import Measured, measure
from inflate.train.plan import Machine, Run, machine_of, plan
from inflate.train.planned import Planned, reduced, simulated
from inflate.train.simulation import Simulated

UNET: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (64, 128, 256),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 128,
}
PIXART: dict[str, Any] = {
    "sample_size": 32,
    "num_layers": 6,
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 384,
    "caption_channels": 128,
    "use_additional_conditions": False,
}
MULTIPLES = {"UNet2DConditionModel": 4, "PixArtTransformer2DModel": 2}


@dataclass(frozen=True)
class Setting:
    """A run to compare, and its name."""

    name: str
    planned: Planned


def settings() -> list[Setting]:
    """Five runs of different shapes, each of a few seconds."""
    with torch.device("meta"):
        unet = "UNet2DConditionModel", dict(UNet2DConditionModel(**UNET).config)
        pixart = "PixArtTransformer2DModel", dict(PixArtTransformer2DModel(**PIXART).config)
    return [
        Setting("unet, 8 frames, temporal", Planned(*unet, 8, 32, 32)),
        Setting("unet, 16 frames, all trained", Planned(*unet, 16, 16, 16, trainable="all")),
        Setting("unet, checkpointing", Planned(*unet, 8, 32, 32, gradient_checkpointing=True)),
        Setting("unet, animatediff, two clips", Planned(*unet, 8, 24, 24, scheme="animatediff-v2", batch_size=2)),
        Setting("pixart, lean", Planned(*pixart, 8, 32, 32, scheme="lean")),
    ]


def compare(setting: Setting) -> dict[str, Any]:
    """Prediction and measurement of one setting."""
    planned = setting.planned
    run = Run(planned, 8, 8 * MULTIPLES[planned.image_model_class], 1, "cpu")
    lasting, whole = simulated(planned)
    small = reduced(planned, whole.flops, 10**11, MULTIPLES[planned.image_model_class])
    lasting, made = simulated(small)
    before = measure(small, "cpu")
    real = measure(planned, "cpu")
    after = measure(small, "cpu")
    predicted = plan(run, machine_of(before, lasting, made, small))
    machine = _mean_machine([machine_of(one, lasting, made, small) for one in (before, after)])
    seconds = plan(run, machine).step_seconds
    assert seconds is not None
    return {
        "setting": setting.name,
        "small": f"{small.num_frames} x {small.height} x {small.width}",
        "megabytes": {
            "predicted": _mb(predicted.total),
            "measured": _mb(real.peak),
            "ratio": _ratio(predicted.total, real.peak),
            "predicted_without_process": _mb(predicted.total - predicted.process),
            "measured_without_process": _mb(real.peak - real.base),
            "ratio_without_process": _ratio(predicted.total - predicted.process, real.peak - real.base),
            "alive": _mb(predicted.total - predicted.process - predicted.allocator),
            "allocator": round(predicted.allocator / whole.peak + 1, 3),
        },
        "seconds": {
            "predicted": round(seconds, 3),
            "measured": round(real.seconds + real.update_seconds, 3),
            "ratio": _ratio(seconds, real.seconds + real.update_seconds),
            "ratio_processor_time": _processor_ratio([before, after], real, whole, made),
        },
    }


def _processor_ratio(small: list[Measured], real: Measured, whole: Simulated, made: Simulated) -> float:
    mean = sum(one.cpu_seconds for one in small) / len(small)
    return _ratio(mean * whole.flops / made.flops, real.cpu_seconds)


def _mean_machine(machines: list[Machine]) -> Machine:
    speeds = [1 / one.flops_per_second for one in machines if one.flops_per_second]
    first = machines[0]
    update = sum(one.update_seconds for one in machines) / len(machines)
    return Machine(first.allocator, first.process, len(speeds) / sum(speeds), update)


def _mb(size: float) -> float:
    return round(size / 1e6, 1)


def _ratio(predicted: float, measured: float) -> float:
    return round(predicted / measured, 3)


def main() -> None:
    """Compare all settings and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/plan_accuracy.json"))
    arguments = parser.parse_args()
    rows = []
    for setting in settings():
        if arguments.only in setting.name:
            rows.append(compare(setting))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": "python benchmarks/plan_accuracy.py",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPU cores; torch {torch.__version__}, Python {platform.python_version()}",
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
