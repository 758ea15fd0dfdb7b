"""What inflating adds to an image model: layers, parameters, arithmetic."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inflate.adapters import call_image_model, random_inputs, sample_size_of
from inflate.figures import Report, SiteReport
from inflate.inflater.model import InflatedModel
from inflate.schemes import Scheme


def meta_image_model(image_model_class: type[Any], config: Any) -> Any:
    """The image model of `config` without weights: no memory, no time."""
    with torch.device("meta"):
        return image_model_class.from_config(config).eval()


def report(
    image_model: nn.Module,
    scheme: str | Scheme = "make-a-video",
    num_frames: int = 16,
    size: tuple[int, int] | None = None,
) -> Report:
    """What inflating `image_model` with `scheme` adds; works without weights and changes nothing.

    Arithmetic is counted on a copy on the meta device, for one video of `num_frames` frames of `size` (by default the
    config's `sample_size`), in floating-point operations (a multiplication and an addition are two). An image model
    that looks at numbers, of a mask say, cannot run there: then nothing is counted.
    """
    plain = meta_image_model(type(image_model), image_model.config)
    height, width = size or sample_size_of(plain)
    with torch.device("meta"):
        video_model = InflatedModel(plain, scheme, num_frames)
    image_flops = new_flops = None
    if video_model.adapter.without_memory:
        image_flops, new_flops = _flops(plain, video_model, num_frames, (height, width))
    # one layer that serves several sites counts once
    firsts = {site.key: site for site in reversed(video_model.sites)}
    sites = tuple(
        SiteReport(
            site.name,
            site.kind,
            type(layer).__name__,
            site.channels,
            sum(p.numel() for p in layer.parameters()) if firsts[site.key] is site else 0,
        )
        for site in video_model.sites
        for layer in (video_model.temporal[site.key],)
    )
    return Report(
        image_model_class=type(image_model).__name__,
        scheme=video_model.scheme.name,
        num_frames=num_frames,
        height=height,
        width=width,
        sites=sites,
        image_parameters=sum(p.numel() for p in plain.parameters()),
        new_parameters=sum(site.new_parameters for site in sites),
        image_flops=image_flops,
        new_flops=new_flops,
    )


@torch.no_grad()
def _flops(plain: nn.Module, video_model: InflatedModel, num_frames: int, size: tuple[int, int]) -> tuple[int, int]:
    """Of the image model on the frames of one video, and what its temporal layers add."""
    inputs = random_inputs(plain, num_frames, size)
    image_flops = _count(lambda: call_image_model(plain, **inputs))
    frames = inputs.pop("sample")
    extra = frames.new_empty(num_frames, video_model.scheme.extra_in_channels, *size)
    sample = torch.cat([frames, extra], dim=1).transpose(0, 1)[None]
    fps = 8 if video_model.scheme.fps_range else None
    return image_flops, _count(lambda: video_model(sample, inputs.pop("timestep"), fps=fps, **inputs)) - image_flops


def _count(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
