"""What a training run is to be, as far as memory and time depend on it, and its network and inputs without weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from inflate.adapters import adapter_of
from inflate.errors import InputError
from inflate.inflater import IMAGE_MODEL_CLASSES, InflatedModel, inflate, meta_image_model, random_inputs
from inflate.train.simulation import Simulated, simulate
from inflate.train.video_options import DTYPES

_AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# Blocks of 8-bit moments share a float32 scale; small tensors keep float32 moments (arXiv:2110.02861, section 2).
_BLOCK, _SMALL = 256, 4096
_FLOAT = 4


@dataclass(frozen=True)
class Planned:
    """A run: the network by class and config, sizes in latent cells, and what of the recipe costs memory or time."""

    image_model_class: str
    config: dict[str, Any]
    num_frames: int
    height: int  # latent cells, pixels for a network of pixels
    width: int
    scheme: str = "make-a-video"
    trainable: str = "temporal"
    lora_rank: int = 16
    batch_size: int = 1
    accumulation: int = 1
    precision: str = "no"
    image_dtype: str = "auto"
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"
    frames_built: int = 0  # frames the network is built for, if it then sees fewer

    @property
    def autocast(self) -> torch.dtype | None:
        """Dtype of autocast; None for none."""
        return _AUTOCAST[self.precision]

    @property
    def cells(self) -> int:
        """Latent cells of a batch."""
        return self.batch_size * self.num_frames * self.height * self.width


@dataclass(frozen=True)
class Lasting:
    """Bytes that outlive an update."""

    weights: int  # of the image model, with LoRAs
    temporal: int
    optimizer: int
    ema: int
    trained: int  # gradients, once all are there

    @property
    def total(self) -> int:
        """All but gradients."""
        return self.weights + self.temporal + self.optimizer + self.ema


def meta_network(planned: Planned) -> InflatedModel:
    """The video model as the training step makes it, on the meta device, in train mode."""
    image_model = meta_image_model(IMAGE_MODEL_CLASSES[planned.image_model_class], planned.config)
    if not adapter_of(image_model).without_memory:
        raise InputError(
            f"a run of {planned.image_model_class} cannot be planned: it looks at numbers, and planning has none; "
            "train for a few updates and read the memory off"
        )
    name = planned.image_dtype
    if name == "auto":
        frozen = planned.trainable == "temporal" and planned.autocast is not None
        name = {torch.bfloat16: "bfloat16", torch.float16: "float16", None: "float32"}[
            planned.autocast if frozen else None
        ]
    if name != "float32":
        # One by one: `to` of a diffusers model warns of layers that only its loader can keep in float32.
        for module in image_model.modules():
            nn.Module._apply(module, lambda tensor: _cast(tensor, DTYPES[name]), recurse=False)
    with torch.device("meta"):
        video_model = inflate(image_model, planned.scheme, planned.frames_built or planned.num_frames)
    video_model.temporal.float()
    image_model.requires_grad_(planned.trainable == "all")
    if planned.trainable == "temporal+lora":
        from inflate.train.adapters import add_domain_adapter

        add_domain_adapter(image_model, planned.lora_rank)
    if planned.gradient_checkpointing:
        image_model.enable_gradient_checkpointing()
    return video_model.train()


def meta_inputs(planned: Planned, video_model: InflatedModel) -> dict[str, Any]:
    """What the network is given, and what it is to answer, on the meta device in float32 as a batch of the loop is."""
    inputs = random_inputs(video_model.image_model, planned.batch_size, (planned.height, planned.width))
    inputs = _in_full(inputs)
    tokens = adapter_of(video_model.image_model).text_tokens
    text = inputs.get("encoder_hidden_states")
    if text is not None and text.ndim == 3:
        inputs["encoder_hidden_states"] = text.new_empty(text.shape[0], tokens, text.shape[2])
    sample, timestep = inputs.pop("sample"), inputs.pop("timestep")
    extra = video_model.scheme.extra_in_channels
    shape = (planned.batch_size, sample.shape[1] + extra, planned.num_frames, *sample.shape[2:])
    return {"noisy": sample.new_empty(shape), "target": sample.new_empty(shape), "timestep": timestep, "told": inputs}


def loss_of(video_model: InflatedModel) -> Callable[[dict[str, Any]], Tensor]:
    """The squared error of one call, for inputs as :func:`meta_inputs` makes them."""
    rate = {} if video_model.scheme.fps_range is None else {"fps": 8.0}

    def loss(inputs: dict[str, Any]) -> Tensor:
        made = video_model(inputs["noisy"], inputs["timestep"], **rate, **inputs["told"]).sample
        target = inputs["target"][:, : made.shape[1]]
        return (made[:, : target.shape[1]].float() - target).square().flatten(1).mean(1).mean()

    return loss


def lasting_bytes(planned: Planned, video_model: InflatedModel) -> Lasting:
    """Weights, their average, and what the optimizer keeps of them."""
    trained = [parameter for parameter in video_model.parameters() if parameter.requires_grad]
    moments = sum(_moments(parameter.numel(), planned.optimizer) for parameter in trained)
    numbers = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return Lasting(
        weights=_bytes(video_model.image_model), temporal=_bytes(video_model.temporal), optimizer=moments, ema=numbers,
        trained=numbers,
    )  # fmt: skip


def simulated(planned: Planned, like_cuda: bool = False) -> tuple[Lasting, Simulated]:
    """Bytes that last, and an update of the run on tensors without memory."""
    video_model = meta_network(planned)
    lasting = lasting_bytes(planned, video_model)
    inputs = meta_inputs(planned, video_model)
    made = simulate(video_model, loss_of(video_model), inputs, planned.autocast, like_cuda, planned.accumulation > 1)
    return lasting, made


def reduced(planned: Planned, flops: int, limit: int, unit: int) -> Planned:
    """Half of the run or less, on the same network: one clip, fewer frames, then smaller pictures.

    Args:
        planned: the run.
        flops: of one of its micro-batches.
        limit: FLOPs that the smaller one should not exceed by much.
        unit: sizes stay multiples of it.
    """
    wanted = planned.cells * min(0.5, limit / max(1, flops))
    small = replace(planned, batch_size=1, accumulation=1, frames_built=planned.frames_built or planned.num_frames)
    while small.cells > wanted:
        if small.num_frames > 4:
            small = replace(small, num_frames=max(4, small.num_frames // 2))
        elif min(small.height, small.width) // 2 >= 2 * unit:
            half = {side: getattr(small, side) // 2 // unit * unit for side in ("height", "width")}
            small = replace(small, **half)
        else:
            break
    return small


def _moments(numbers: int, optimizer: str) -> int:
    if optimizer == "adamw" or numbers < _SMALL:
        return 2 * numbers * _FLOAT
    return 2 * (numbers + -(-numbers // _BLOCK) * _FLOAT)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _in_full(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_full(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_full(item) for item in value]
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
