"""What a recipe may say of fine-tuning a video model, and what can be told of its clips before it starts."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inflate.data.clips import ClipSet
from inflate.data.listing.report import captions_missing
from inflate.diffusion.weights import WEIGHTINGS
from inflate.errors import InputError
from inflate.inflater import InflatedModel
from inflate.layers.starting import StartsAsIdentity
from inflate.train.choices import check_choices
from inflate.train.processes import DENSITIES

TRAINABLE = ("temporal", "temporal+lora", "all")
CONDITIONS = ("auto", "text", "empty", "image", "class", "nothing")


@dataclass(frozen=True)
class VideoOptions:
    """The ``[options]`` of a recipe with ``step = "video"``.

    ``model``: a pipeline's folder, a lone network's, a single file or a hub name; ``parts``: folders of what it lacks,
    by role (``base`` lends everything); ``variant``: which of its weights, such as ``fp16``, the plain ones by default.
    ``scheme``: of temporal layers; ``init``: an inflated folder or a motion module whose temporal weights to start
    from. ``trainable``: ``temporal``, ``temporal+lora`` (a LoRA of ``lora_rank`` on the
    spatial attention, saved by itself: a domain adapter) or ``all``; with ``motion_lora_rank`` above 0, a MotionLoRA on
    ``init``. ``condition``: ``auto``, ``text``, ``empty``, ``image``, ``class`` or ``nothing``;
    ``condition_dropout``: share of clips told nothing, for guidance. ``shared_noise``, ``noise_time``: correlation of
    frames' noise, as in ``Scheme``. ``timestep_density``, ``weighting``, ``gamma``: see ``process_of``. ``guidance``:
    the scale that a guidance-distilled model (FLUX) is told. ``pictures_per_batch``: of ``data.pictures``, beside the
    clips, through the image model alone. ``cache``: encode every clip once and keep it on disk. ``image_dtype``: of
    frozen image weights; ``auto`` is the one of ``train.mixed_precision``. ``sample_*``: of the videos made on the way.
    """

    model: str
    parts: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    scheme: str = "make-a-video"
    init: str = ""
    trainable: str = "temporal"
    lora_rank: int = 16
    lora_alpha: float = 0.0
    motion_lora_rank: int = 0
    condition: str = "auto"
    condition_dropout: float = 0.1
    shared_noise: float = 0.0
    noise_time: float = 0.0
    timestep_density: str = "auto"
    weighting: str = "auto"
    gamma: float = 5.0
    guidance: float = 1.0
    pictures_per_batch: int = 0
    cache: bool = True
    image_dtype: str = "auto"
    validation_clips: int = 8
    sample_prompts: tuple[str, ...] = ()
    sample_clips: int = 2
    sample_steps: int = 25
    sample_guidance: float = 0.0

    def __post_init__(self) -> None:
        check_choices(
            self,
            trainable=TRAINABLE,
            image_dtype=("auto", *DTYPES),
            condition=CONDITIONS,
            timestep_density=DENSITIES,
            weighting=("auto", *WEIGHTINGS),
        )
        if not 0 <= self.condition_dropout < 1:
            raise InputError(f"options.condition_dropout is {self.condition_dropout}; it must lie in [0, 1).")
        if self.motion_lora_rank and not self.init:
            raise InputError("options.motion_lora_rank trains a change to a motion module; name it as options.init.")
        if self.motion_lora_rank and self.trainable != "temporal":
            raise InputError("options.motion_lora_rank goes with options.trainable = 'temporal' only.")


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_OF_PRECISION = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def data_advice(clips: ClipSet, condition: str, fps_range: tuple[float, float] | None) -> list[str]:
    """Sentences about clips that will not teach what their owner hopes."""
    windows = [window for window in clips.windows if window.kind == "clip" and window.split == "train"]
    said = captions_missing([window.caption for window in windows], "clips") if condition == "text" else []
    if fps_range is not None:
        beyond = [window for window in windows if not fps_range[0] <= window.fps <= fps_range[1]]
        if beyond:
            said.append(
                f"{len(beyond)} clips have frame rates outside {fps_range[0]:g} to {fps_range[1]:g}, the range of the "
                "scheme's frame-rate embedding; set data.fps within it."
            )
    return said


def temporal_change(video_model: InflatedModel) -> float:
    """How far the temporal layers have left the identity: the largest weight of a projection that started at zero."""
    layers = [layer for layer in video_model.temporal.values() if isinstance(layer, StartsAsIdentity)]
    witnesses = [layer.identity_witness() for layer in layers]
    found = [float(one.detach().abs().max()) for one in witnesses if isinstance(one, Tensor) and one.numel()]
    return max(found, default=1.0)
