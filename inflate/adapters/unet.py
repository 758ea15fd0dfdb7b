"""UNets: diffusers' `UNet2DConditionModel` and `UNet2DModel`.

The rules for the sites:

* Every spatial convolution with a kernel larger than 1 gets a temporal one after it (Make-A-Video, eq. 4): those of the
  down, mid and up blocks (residual, downsampling and upsampling ones), and `conv_in`. A scheme may ask for the last
  convolution of each residual block only.
* 1x1 convolutions (shortcuts, `proj_in`, `proj_out`) get none: they act per pixel as the fully connected layers do, and
  Make-A-Video leaves those unchanged.
* `conv_out` gets none. Its output is the prediction itself; neighbouring frames carry independent noise, so a linear
  mix of their predictions cannot help, and a learned variance would be mixed with the noise prediction. The last
  residual block before it already sees time. The same holds for `skip_conv` of the score-SDE blocks, which makes
  pictures.
* Every spatial attention block gets one temporal attention after it: a `Transformer2DModel` as a whole (also inside a
  dual one), an `Attention` that maps pictures to pictures (AttnDownBlock2D, the mid block of `UNet2DModel`, the
  SimpleCrossAttn blocks of Karlo, Kandinsky and DeepFloyd IF), and a `KAttentionBlock`. Heads are those of the spatial
  attention.
* Motion modules go after every layer of the down and up blocks: after its attention, or after its residual block where
  it has none; in the mid block after its attention (AnimateDiff v2). They are numbered by block, as its files do.
* Inside `Transformer2DModel` are the transformer blocks, whose first attention sees the tokens of its own frame.
* The frame-rate embedding is added to the output of `time_embedding`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import KAttentionBlock
from torch import Tensor, nn

from inflate.adapters.adapter import Adapter
from inflate.adapters.inputs import NUM_TEXT_TOKENS, NUM_TIMESTEPS, RandomSource
from inflate.adapters.transformer import query_place
from inflate.errors import InputError
from inflate.layers import Place, Where, plain_module

NUM_IMAGE_PATCHES = 5
NUM_TIME_IDS = 6  # SDXL: original size, crop, target size
HINT_FACTOR = 8  # a Kandinsky hint is a picture in pixels; its latents are 8 times smaller
HINT_CHANNELS = 4  # channels the hint becomes inside the image model, beside those of the sample

_RESIDUAL_BLOCKS = (ResnetBlock2D, ResnetBlockCondNorm2D)
_PARTS = ("down_blocks", "mid_block", "up_blocks", "conv_in")


class PlainUNet(Adapter):
    """`UNet2DModel`: told a time step and perhaps a class."""

    image_model_class = UNet2DModel
    family = "UNet"
    given = ("self", "sample", "timestep", "return_dict")
    refused: ClassVar[dict[Where, str]] = {
        "modulated_block": "temporal blocks go between the blocks of a transformer",
        "feed_forward": "convolutions in feed-forwards are those of some transformers",
        "patch_out": "frames are patched together only where there are patches, in a transformer",
    }
    instead = "another scheme ('inflate schemes' lists them)"

    def places(self) -> Iterator[Place]:
        """See `Adapter`: those of the module tree, then of layers, of tokens, of the time step, of the input."""
        seen: set[int] = set()  # Downsample2D may hold one convolution under two names
        for name, module in self.model.named_children():
            if name in _PARTS and module is not None:
                yield from _walk(name, module, seen)
        yield from _layers(self.model)
        for name, block in self.model.named_modules():
            if isinstance(block, BasicTransformerBlock):
                yield from self._in_block(name, block)
        last: Any = plain_module(self.model.time_embedding.linear_2)
        yield Place("time_embedding", ("time_embedding",), int(last.out_features))
        first: Any = plain_module(self.model.conv_in)
        yield Place("conv_in", ("conv_in",), int(first.out_channels))

    def _in_block(self, name: str, block: BasicTransformerBlock) -> Iterator[Place]:
        """In and after diffusers' basic transformer block."""
        if not block.only_cross_attention:
            where: tuple[Where, ...] = ("self_attention", "every_attention")
            yield Place(f"{name}.attn1", where, block.dim, gather=self.gather_frames)
            yield query_place(f"{name}.attn1", block.attn1)
        if block.attn2 is not None:
            yield query_place(f"{name}.attn2", block.attn2)
        yield _attention_place(name, block.dim, block.num_attention_heads, "transformer_block")

    @property
    def in_channels(self) -> int:
        """Of the first convolution, those of a hint left out."""
        hint = HINT_CHANNELS if self.config.get("addition_embed_type") == "image_hint" else 0
        conv_in: Any = plain_module(self.model.conv_in)
        return int(conv_in.in_channels) - hint

    def examples(self, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A class, where there are any."""
        kind, num_classes = self.config.get("class_embed_type"), self.config.get("num_class_embeds")
        if kind is None:
            return {} if num_classes is None else {"class_labels": source.integers(0, int(num_classes))}
        if kind == "timestep":
            return {"class_labels": source.integers(1, NUM_TIMESTEPS)}
        if kind == "identity":
            last: Any = plain_module(self.model.time_embedding.linear_2)
            return {"class_labels": source.normal(int(last.out_features))}
        if kind in ("projection", "simple_projection"):
            return {"class_labels": source.normal(int(self.config["projection_class_embeddings_input_dim"]))}
        raise InputError(f"no random inputs are known for class_embed_type {kind!r}")


class ConditionedUNet(PlainUNet):
    """`UNet2DConditionModel`: told a text or a picture too."""

    image_model_class = UNet2DConditionModel

    def examples(self, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A class, a text, a picture and what stands for it, as the config has it."""
        config, told = self.config, super().examples(source, size)
        kind = config.encoder_hid_dim_type  # an attribute, which diffusers changes for an IP-Adapter, unlike the item
        if kind not in (None, "text_proj", "text_image_proj", "image_proj", "ip_image_proj"):
            raise InputError(f"no random inputs are known for encoder_hid_dim_type {kind!r}")
        # An IP-Adapter on a model with a projection of its text leaves that projection in place.
        projected = kind in ("text_proj", "text_image_proj") or (kind == "ip_image_proj" and config.encoder_hid_dim)
        text = int(config.encoder_hid_dim) if projected else self._cross_width
        told["encoder_hidden_states"] = None if kind == "image_proj" else source.normal(NUM_TEXT_TOKENS, text)
        added = self._added(source, *size)
        if kind == "text_image_proj" and "image_embeds" not in added:
            added["image_embeds"] = source.normal(self._cross_width)
        if kind == "ip_image_proj":
            adapters = self.model.get_submodule("encoder_hid_proj.image_projection_layers").children()
            added["image_embeds"] = [_ip_adapter_image(one, source) for one in adapters]
        if added:
            told["added_cond_kwargs"] = added
        if config.time_cond_proj_dim is not None:
            told["timestep_cond"] = source.normal(int(config.time_cond_proj_dim))
        return told

    @property
    def _cross_width(self) -> int:
        """Of what cross-attention sees, which configs give as one number or as one per block."""
        width = self.config.cross_attention_dim
        return int(width) if isinstance(width, int) else int(width[0])

    def _added(self, source: RandomSource, height: int, width: int) -> dict[str, Any]:
        """What is added to the embedding of the time step."""
        config, kind = self.config, self.config.get("addition_embed_type")
        if kind == "text_time":
            times = NUM_TIME_IDS * int(config.addition_time_embed_dim)
            pooled = int(config.projection_class_embeddings_input_dim) - times
            return {"text_embeds": source.normal(pooled), "time_ids": source.integers(0, 1024, NUM_TIME_IDS)}
        if kind == "text_image":
            return {name: source.normal(self._cross_width) for name in ("text_embeds", "image_embeds")}
        if kind in ("image", "image_hint"):
            added = {"image_embeds": source.normal(int(config.encoder_hid_dim))}
            if kind == "image_hint":
                added["hint"] = source.normal(3, HINT_FACTOR * height, HINT_FACTOR * width)
            return added
        if kind not in (None, "text"):
            raise InputError(f"no random inputs are known for addition_embed_type {kind!r}")
        return {}


def _walk(name: str, module: nn.Module, seen: set[int]) -> Iterator[Place]:
    """Places in `module`, depth first; one that is a place itself is not entered, but for residual blocks."""
    module = plain_module(module)
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, nn.Conv2d):
        if max(module.kernel_size) > 1 and not name.endswith("skip_conv"):
            yield Place(name, ("convolution",), module.out_channels)
        return
    heads = _spatial_attention(module)
    if heads is not None:
        yield _attention_place(name, *heads)
        return
    if name.endswith("skip_conv"):
        return
    for child_name, child in module.named_children():
        for place in _walk(f"{name}.{child_name}", child, seen):
            last = isinstance(module, _RESIDUAL_BLOCKS) and place.name == f"{name}.conv2"
            yield replace(place, where=("convolution", "last_convolution")) if last else place
    if isinstance(module, _RESIDUAL_BLOCKS):
        yield Place(name, ("residual_block",), _out_channels(module))


def _spatial_attention(module: nn.Module) -> tuple[int, int] | None:
    """Channels and heads of an attention block; None for what is none."""
    if isinstance(module, DualTransformer2DModel):
        module = module.transformers[0]
    if isinstance(module, Transformer2DModel):
        return module.config["in_channels"], module.num_attention_heads
    if isinstance(module, KAttentionBlock):
        module = module.attn2
    return (module.query_dim, module.heads) if isinstance(module, Attention) else None


def _attention_place(name: str, channels: int, num_heads: int, where: Where = "attention") -> Place:
    """Temporal attention has as many heads as the spatial one, over the same channels."""
    return Place(name, (where,), channels, num_heads, max(1, channels // num_heads))


def _layers(image_model: nn.Module) -> Iterator[Place]:
    """After every layer of the down and up blocks, and of the mid block."""
    for part in ("down_blocks", "mid_block", "up_blocks"):
        blocks = image_model.get_submodule(part) if getattr(image_model, part, None) is not None else None
        if part == "mid_block" and blocks is not None:
            yield from _layers_of(part, blocks, "mid_layer")
        elif blocks is not None:
            for key, block in blocks.named_children():
                yield from _layers_of(f"{part}.{key}", block, "layer")


def _layers_of(name: str, block: nn.Module, where: Where) -> Iterator[Place]:
    resnets = list(getattr(block, "resnets", None) or ())
    attentions = [one for one in getattr(block, "attentions", None) or () if one is not None]
    if where == "mid_layer":
        # Its first residual block stands alone; without attention, the layer goes after the last one.
        layers = [("attentions", index) for index in range(len(attentions))] or [("resnets", len(resnets) - 1)]
    else:
        # A block with one attention for all its layers (AttnSkipUpBlock2D) counts as one without.
        kind = "attentions" if len(attentions) == len(resnets) else "resnets"
        layers = [(kind, index) for index in range(len(resnets))]
    for number, (kind, index) in enumerate(layers):
        channels, layer_name = _out_channels(resnets[index]), f"{name}.motion_modules.{number}"
        yield Place(f"{name}.{kind}.{index}", (where,), channels, layer_name=layer_name)


def _out_channels(block: nn.Module) -> int:
    """Of a residual block: its own `out_channels` names the width inside in `ResnetBlockCondNorm2D`."""
    return int(plain_module(block.get_submodule("conv2")).out_channels)  # type: ignore[arg-type]  # a Conv2d's int


def _ip_adapter_image(projection: nn.Module, source: RandomSource) -> Tensor:
    """The embedding of one picture, (batch, 1, D), or of its patches, (batch, 1, N, D)."""
    linear = next(module for module in projection.modules() if isinstance(module, nn.Linear))
    pooled = isinstance(projection, ImageProjection | IPAdapterFullImageProjection)
    return source.normal(*((1,) if pooled else (1, NUM_IMAGE_PATCHES)), linear.in_features)
