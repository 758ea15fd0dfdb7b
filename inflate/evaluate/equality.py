"""Is the inflated model still the image model, frame by frame and bit for bit?

A scheme whose spatial attention sees other frames cannot be that; there every frame is the same picture (with the same
noise), and the image model's answer for it is expected, up to rounding.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from inflate.adapters import call_image_model, random_inputs, sample_size_of
from inflate.errors import InputError
from inflate.inflater import InflatedModel

# Largest difference over the largest value that still counts as rounding, by the size of the dtype in bytes.
ROUNDING = {8: 1e-10, 4: 1e-5, 2: 3e-2}


@dataclass(frozen=True)
class Difference:
    """Where an inflated model first departs from its image model."""

    frame: int
    channel: int
    row: int
    column: int
    max_abs_difference: float  # over all frames
    num_frames_different: int
    first_site: str | None  # the first module, in the order of computation, whose temporal layer changed its input
    num_sites_changed: int


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify`; `difference` is None when every frame is equal bit for bit."""

    image_model_class: str
    scheme: str
    num_frames: int
    height: int
    width: int
    dtype: str
    device: str
    seed: int
    num_sites: int
    equal_frames: bool  # whether all frames were one picture, and rounding was allowed
    difference: Difference | None

    @property
    def equal(self) -> bool:
        """True when every frame is equal bit for bit."""
        return self.difference is None

    def sentence(self) -> str:
        """The outcome in one sentence."""
        if self.difference is None and self.equal_frames:
            return "equal frames give the image model's answer, every frame of them, up to rounding"
        if self.difference is None:
            return "bit-for-bit equal on every frame"
        where = self.difference
        cause = "no temporal layer changed its input, so the two runs were computed differently"
        if where.num_sites_changed:
            cause = (
                f"{where.num_sites_changed} of {self.num_sites} temporal layers change their input, "
                f"the first at {where.first_site}"
            )
        return (
            f"differs on {where.num_frames_different} of {self.num_frames} frames, first on frame {where.frame} "
            f"at channel {where.channel}, row {where.row}, column {where.column} "
            f"(largest difference {where.max_abs_difference:.3g}); {cause}"
        )

    def to_json(self) -> str:
        """All fields, `equal` and the sentence as indented JSON."""
        return json.dumps({**asdict(self), "equal": self.equal, "sentence": self.sentence()}, indent=2)


@torch.no_grad()
def verify(
    video_model: InflatedModel,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Verification:
    """Run the image model and the inflated model on the same random frames, in batches of one shape, and compare.

    The image model is called directly and then through its video model, so only one copy of it is in memory.
    """
    image_model = video_model.image_model
    num_frames = num_frames or video_model.num_frames
    if num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
    height, width = size or sample_size_of(image_model)
    was_training = video_model.training
    video_model.eval()
    inputs = random_inputs(image_model, num_frames, (height, width), torch.Generator().manual_seed(seed))
    equal_frames = not video_model.scheme.starts_as_image_model
    if equal_frames:
        inputs = _of_first_frame(inputs)
    try:
        expected = call_image_model(image_model, **inputs).sample
        difference = _compare(video_model, inputs, expected)
    finally:
        video_model.train(was_training)
    return Verification(
        image_model_class=type(image_model).__name__,
        scheme=video_model.scheme.name,
        num_frames=num_frames,
        height=height,
        width=width,
        dtype=str(video_model.dtype).removeprefix("torch."),
        device=str(video_model.device),
        seed=seed,
        num_sites=len(video_model.sites),
        equal_frames=equal_frames,
        difference=difference,
    )


def _of_first_frame(value: Any) -> Any:
    """`value` with what belongs to the first frame in all of them."""
    if isinstance(value, dict):
        return {key: _of_first_frame(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_of_first_frame(item) for item in value]
    return value[:1].expand_as(value).contiguous() if isinstance(value, Tensor) else value


def _is_rounding(found: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) <= ROUNDING[expected.element_size()] * max(largest, 1e-3)


def _compare(video_model: InflatedModel, inputs: dict[str, Any], expected: Tensor) -> Difference | None:
    """`expected` is (F, C, H, W), the image model's answer for `inputs`."""
    arguments = dict(inputs)
    frames, timestep = arguments.pop("sample"), arguments.pop("timestep")
    extra = frames.new_zeros(frames.shape[0], video_model.scheme.extra_in_channels, *frames.shape[2:])
    sample = torch.cat([frames, extra], dim=1).transpose(0, 1)[None]
    fps = 8 if video_model.scheme.fps_range else None
    found = video_model(sample, timestep, fps=fps, **arguments).sample[0].transpose(0, 1)
    if torch.equal(found, expected):
        return None
    if not video_model.scheme.starts_as_image_model and _is_rounding(found, expected):
        return None
    gap = (found.float() - expected.float()).abs().nan_to_num(nan=float("inf"))
    different = (found != expected).nonzero()
    frame, channel, row, column = (int(index) for index in different[0])
    # Only now, once more with the layers watched, to say where it begins.
    video_model.context.changes = {}
    try:
        video_model(sample, timestep, fps=fps, **arguments)
        changed = [name for name, change in video_model.context.changes.items() if change > 0]
    finally:
        video_model.context.changes = None
    return Difference(
        frame=frame,
        channel=channel,
        row=row,
        column=column,
        max_abs_difference=float(gap.max()),
        num_frames_different=int(different[:, 0].unique().numel()),
        first_site=changed[0] if changed else None,
        num_sites_changed=len(changed),
    )
