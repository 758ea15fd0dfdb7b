"""Random valid inputs for any supported image model, read off its config."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection
from torch import Tensor, nn

from inflate.errors import InputError
from inflate.inflater.sites import plain_module

NUM_TEXT_TOKENS = 7
NUM_IMAGE_PATCHES = 5
NUM_TIME_IDS = 6  # SDXL: original size, crop, target size
DEFAULT_SIZE = 32  # height and width for a config without sample_size
HINT_FACTOR = 8  # a Kandinsky hint is a picture in pixels; its latents are 8 times smaller
HINT_CHANNELS = 4  # channels the hint becomes inside the image model


def sample_size_of(image_model: nn.Module) -> tuple[int, int]:
    """Height and width the image model was made for."""
    config: Any = image_model.config
    size = config.get("sample_size")  # FLUX has none
    if size is None:
        return DEFAULT_SIZE, DEFAULT_SIZE
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


class RandomSource:
    """Random tensors on the model's device, drawn on the CPU so that a seed means the same everywhere."""

    def __init__(self, image_model: nn.Module, batch: int, generator: torch.Generator | None) -> None:
        parameter = next(p for p in image_model.parameters() if p.is_floating_point())
        self.device, self.dtype, self.batch, self.generator = parameter.device, parameter.dtype, batch, generator

    def normal(self, *shape: int) -> Tensor:
        """(batch, *shape) from the standard normal."""
        if self.device.type == "meta":
            return torch.empty(self.batch, *shape, device="meta", dtype=self.dtype)
        return torch.randn(self.batch, *shape, generator=self.generator).to(self.device, self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(batch, *shape) whole numbers from `low` to `high` - 1."""
        if self.device.type == "meta":
            return torch.empty(self.batch, *shape, device="meta", dtype=torch.long)
        return torch.randint(low, high, (self.batch, *shape), generator=self.generator).to(self.device)


def random_inputs(
    image_model: nn.Module,
    batch: int,
    size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """All arguments `image_model` needs for `batch` pictures, each with its own random values.

    Args:
        image_model: a `UNet2DConditionModel` or `UNet2DModel`, on any device; on the meta device the inputs are too.
        batch: number of pictures; every tensor has this first size.
        size: height and width of the sample; the config's `sample_size` by default.
        generator: a CPU generator.

    Returns:
        Keyword arguments of `image_model.forward`: sample (batch, C, H, W), timestep (batch,) and whatever
        the config asks for.

    Raises:
        InputError: the config asks for a condition this function does not know.
    """
    config: Any = image_model.config
    source = RandomSource(image_model, batch, generator)
    height, width = size or sample_size_of(image_model)
    channels = int(config.in_channels)
    if config.get("addition_embed_type") == "image_hint":
        channels -= HINT_CHANNELS
    inputs: dict[str, Any] = {
        "sample": source.normal(channels, height, width),
        "timestep": source.integers(1, int(config.get("num_train_timesteps") or 1000)),
    }
    labels = _class_labels(image_model, config, source)
    if labels is not None:
        inputs["class_labels"] = labels
    if isinstance(image_model, UNet2DConditionModel):
        inputs["encoder_hidden_states"] = _encoder_hidden_states(config, source)
        added = _added_conditions(config, source, height, width)
        if config.encoder_hid_dim_type == "ip_image_proj":
            added["image_embeds"] = _ip_adapter_images(image_model, source)
        if added:
            inputs["added_cond_kwargs"] = added
        if config.time_cond_proj_dim is not None:
            inputs["timestep_cond"] = source.normal(int(config.time_cond_proj_dim))
    return inputs


def _class_labels(image_model: nn.Module, config: Mapping[str, Any], source: RandomSource) -> Tensor | None:
    kind = config.get("class_embed_type")
    if kind is None:
        num_classes = config.get("num_class_embeds")
        return None if num_classes is None else source.integers(0, int(num_classes))
    if kind == "timestep":
        return source.integers(1, 1000)
    if kind == "identity":
        last = plain_module(image_model.get_submodule("time_embedding.linear_2"))
        return source.normal(int(last.out_features))  # type: ignore[arg-type]  # a Linear's int
    if kind in ("projection", "simple_projection"):
        return source.normal(int(config["projection_class_embeddings_input_dim"]))
    raise InputError(f"no random inputs are known for class_embed_type {kind!r}")


def _encoder_hidden_states(config: Mapping[str, Any], source: RandomSource) -> Tensor | None:
    kind = config.get("encoder_hid_dim_type")
    if kind == "image_proj":
        return None
    # An IP-Adapter on a model with a projection of its text leaves that projection in place.
    if kind in ("text_proj", "text_image_proj") or (kind == "ip_image_proj" and config.get("encoder_hid_dim")):
        return source.normal(NUM_TEXT_TOKENS, int(config["encoder_hid_dim"]))
    if kind not in (None, "ip_image_proj"):
        raise InputError(f"no random inputs are known for encoder_hid_dim_type {kind!r}")
    return source.normal(NUM_TEXT_TOKENS, _first(config["cross_attention_dim"]))


def _added_conditions(config: Mapping[str, Any], source: RandomSource, height: int, width: int) -> dict[str, Any]:
    kind = config.get("addition_embed_type")
    added: dict[str, Any] = {}
    if kind == "text_time":
        time_width = NUM_TIME_IDS * int(config["addition_time_embed_dim"])
        added["text_embeds"] = source.normal(int(config["projection_class_embeddings_input_dim"]) - time_width)
        added["time_ids"] = source.integers(0, 1024, NUM_TIME_IDS)
    elif kind == "text_image":
        added["text_embeds"] = source.normal(_first(config["cross_attention_dim"]))
        added["image_embeds"] = source.normal(_first(config["cross_attention_dim"]))
    elif kind in ("image", "image_hint"):
        added["image_embeds"] = source.normal(int(config["encoder_hid_dim"]))
        if kind == "image_hint":
            added["hint"] = source.normal(3, HINT_FACTOR * height, HINT_FACTOR * width)
    elif kind not in (None, "text"):
        raise InputError(f"no random inputs are known for addition_embed_type {kind!r}")
    if config.get("encoder_hid_dim_type") == "text_image_proj" and "image_embeds" not in added:
        added["image_embeds"] = source.normal(_first(config["cross_attention_dim"]))
    return added


def _ip_adapter_images(image_model: nn.Module, source: RandomSource) -> list[Tensor]:
    """For each IP-Adapter the embedding of one picture: (batch, 1, D), or of its patches (batch, 1, N, D)."""
    images = []
    for projection in image_model.get_submodule("encoder_hid_proj.image_projection_layers").children():
        linear = next(module for module in projection.modules() if isinstance(module, nn.Linear))
        pooled = isinstance(projection, ImageProjection | IPAdapterFullImageProjection)
        images.append(source.normal(*((1,) if pooled else (1, NUM_IMAGE_PATCHES)), linear.in_features))
    return images


def _first(width: int | Sequence[int]) -> int:
    """A width that configs give as one number or as one per block."""
    return int(width) if isinstance(width, int) else int(width[0])
