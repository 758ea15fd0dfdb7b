"""A data set of six random pictures that fade, and a whole family of tiny networks with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inflate.cascade import Cascade
from inflate.data import DataReport
from inflate.stages import StageSettings
from interp.frame_decoder import new_frame_decoder
from interp.stage import InterpolationStage
from superres.spatial import SpatialConfig, SpatialStage
from superres.spatiotemporal import SpatiotemporalConfig, SpatiotemporalStage
from tests.interp import networks as interpolation_networks
from tests.models.tiny_family import tiny_cascade, tiny_vae
from tests.superres import networks as superres_networks


def write_cache(folder: Path, size: int, of_test: int = 1) -> Path:
    """A frame cache as ``build_frame_cache`` writes it: stills and clips of six things, the last ones of test."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, frames, start = [], [], 0
    for number in range(6):
        picture = rng.integers(0, 256, (size, size, 3))
        for kind, count in (("still", 1), ("clip", 12)):
            fade = 1 - 0.06 * np.arange(count)
            frames.append((picture * fade[:, None, None, None]).astype(np.uint8))
            rows.append(
                {
                    "name": f"{number:x}",
                    "caption": f"thing {number}",
                    "keywords": [],
                    "split": "test" if number >= 6 - of_test else "train",
                    "kind": kind,
                    "start": start,
                    "num_frames": count,
                    "timestamps": [index / 30 for index in range(count)],
                    "duration": count / 30,
                    "loop": False,
                }
            )
            start += count
    np.concatenate(frames).tofile(folder / "frames.bin")
    index = {"format": "inflate-frames-2", "source": "toys", "layout": "prepared", "size": size, "fingerprint": "x"}
    report = DataReport(len(rows)).to_json()
    (folder / "index.json").write_text(json.dumps({**index, "report": report, "entries": rows}))
    return folder


def super_resolution_stages() -> list[Any]:
    """SR_l^t, four times, and SR_h, twice, in one step each."""
    once = StageSettings(num_inference_steps=1)
    spatiotemporal = SpatiotemporalStage(
        {"sr_unet": superres_networks.tiny_video_unet(), "sr_scheduler": superres_networks.solver()},
        defaults=once,
        config=SpatiotemporalConfig(scale=4, residual_std=0.1, window=8, overlap=2),
    )
    spatial = SpatialStage(
        {"upscaler_unet": superres_networks.tiny_unet(), "upscaler_scheduler": superres_networks.solver()},
        defaults=once,
        config=SpatialConfig(scale=2, residual_std=0.1),
    )
    return [spatiotemporal, spatial]


def tiny_chain() -> Cascade:
    """All five stages, from a prompt to frames eight times as large as the decoder's."""
    decoder = new_frame_decoder((8, 16), norm_num_groups=4)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    interpolation = InterpolationStage(
        {
            "interpolation_unet": interpolation_networks.trained(),
            "scheduler": interpolation_networks.solver(),
            "vae": tiny_vae(),
            "frame_decoder": decoder.eval(),
        },
        defaults=StageSettings(num_inference_steps=1),
    )
    stages = (*tiny_cascade().stages, interpolation, *super_resolution_stages())
    return Cascade(stages, device="cpu", keep_loaded=True)
