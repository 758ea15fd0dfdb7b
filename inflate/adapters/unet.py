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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
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
from inflate.adapters.sites import Site, plain_module
from inflate.adapters.transformer import query_site
from inflate.errors import InputError
from inflate.schemes import Scheme

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
    refused_fields: ClassVar[dict[str, str]] = {
        "temporal_blocks": "temporal blocks go between the blocks of a transformer",
        "feed_forward_convolution": "convolutions in feed-forwards are those of some transformers",
        "patch_frames": "frames are patched together only where there are patches, in a transformer",
    }
    instead = "another scheme ('inflate schemes' lists them)"

    def find_sites(self, image_model: nn.Module, scheme: Scheme) -> list[Site]:
        """See `Adapter`."""
        return _find_sites(image_model, scheme)

    def in_channels(self, image_model: nn.Module) -> int:
        """Of the first convolution, those of a hint left out."""
        config: Any = image_model.config
        hint = HINT_CHANNELS if config.get("addition_embed_type") == "image_hint" else 0
        conv_in = plain_module(image_model.get_submodule("conv_in"))
        return int(conv_in.in_channels) - hint  # type: ignore[arg-type]  # a Conv2d's int

    def patch_size(self, config: Mapping[str, Any]) -> int:
        """There are no patches."""
        return 1

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        return image_model(pictures, timestep, **arguments)

    def random_inputs(
        self, image_model: nn.Module, batch: int, size: tuple[int, int], generator: torch.Generator | None
    ) -> dict[str, Any]:
        """See `Adapter`."""
        config: Any = image_model.config
        source = RandomSource(image_model, batch, generator)
        inputs = {
            "sample": source.normal(self.in_channels(image_model), *size),
            "timestep": source.integers(1, int(config.get("num_train_timesteps") or NUM_TIMESTEPS)),
        }
        labels = _class_labels(image_model, config, source)
        return inputs if labels is None else {**inputs, "class_labels": labels}


class ConditionedUNet(PlainUNet):
    """`UNet2DConditionModel`: told a text or a picture too."""

    image_model_class = UNet2DConditionModel

    def random_inputs(
        self, image_model: nn.Module, batch: int, size: tuple[int, int], generator: torch.Generator | None
    ) -> dict[str, Any]:
        """See `Adapter`."""
        inputs = super().random_inputs(image_model, batch, size, generator)
        config: Any = image_model.config
        source = RandomSource(image_model, batch, generator)
        inputs["encoder_hidden_states"] = _encoder_hidden_states(config, source)
        added = _added_conditions(config, source, *size)
        if config.encoder_hid_dim_type == "ip_image_proj":
            added["image_embeds"] = _ip_adapter_images(image_model, source)
        if added:
            inputs["added_cond_kwargs"] = added
        if config.time_cond_proj_dim is not None:
            inputs["timestep_cond"] = source.normal(int(config.time_cond_proj_dim))
        return inputs


def _find_sites(image_model: nn.Module, scheme: Scheme) -> list[Site]:
    """The sites of a UNet under `scheme`, in the order of the module tree; may be empty."""
    seen: set[int] = set()  # Downsample2D may hold one convolution under two names
    sites: list[Site] = []
    for name, module in image_model.named_children():
        if name in _PARTS and module is not None:
            sites.extend(_walk(name, module, seen))
    sites = [site for site in sites if _wanted(site, image_model, scheme)]
    if scheme.motion_modules:
        sites.extend(_motion_sites(image_model, scheme.mid_motion_module))
    sites.extend(_token_sites(image_model, scheme))
    if not sites:
        return sites
    if scheme.embeds_numbers:
        # torch's stubs take a module's attributes for tensors or modules; these are numbers.
        linear = plain_module(image_model.get_submodule("time_embedding.linear_2"))
        embed_dim = int(linear.out_features)  # type: ignore[arg-type]  # a Linear's int
        sites.append(Site("time_embedding", "time_embedding", embed_dim))
    if scheme.extra_in_channels:
        first = plain_module(image_model.get_submodule("conv_in"))
        sites.append(Site("conv_in", "extra_input", int(first.out_channels)))  # type: ignore[arg-type]  # as above
    return sites


def _wanted(site: Site, image_model: nn.Module, scheme: Scheme) -> bool:
    if site.kind == "convolution" and not scheme.every_convolution:
        parent, _, last = site.name.rpartition(".")
        return (
            scheme.convolution and last == "conv2" and isinstance(image_model.get_submodule(parent), _RESIDUAL_BLOCKS)
        )
    wanted = {
        "convolution": scheme.convolution,
        "attention": scheme.attention,
        "residual_block": scheme.residual_blocks,
    }
    return wanted[site.kind]


def _walk(name: str, module: nn.Module, seen: set[int]) -> Iterator[Site]:
    """Sites in `module`, depth first; a module that is a site is not entered, but for residual blocks."""
    module = plain_module(module)
    if id(module) in seen:
        return
    seen.add(id(module))
    site = _site_of(name, module)
    if site is not None:
        yield site
        return
    if isinstance(module, nn.Conv2d) or name.endswith("skip_conv"):
        return
    for child_name, child in module.named_children():
        yield from _walk(f"{name}.{child_name}", child, seen)
    if isinstance(module, _RESIDUAL_BLOCKS):
        yield Site(name, "residual_block", _out_channels(module))


def _site_of(name: str, module: nn.Module) -> Site | None:
    """`module` as a site, or None."""
    if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and not name.endswith("skip_conv"):
        return Site(name, "convolution", module.out_channels)
    if isinstance(module, DualTransformer2DModel):
        inner = module.transformers[0]
        assert isinstance(inner, Transformer2DModel), "a dual transformer holds two Transformer2DModel"
        return _attention_site(name, inner.config["in_channels"], inner.num_attention_heads)
    if isinstance(module, Transformer2DModel):
        return _attention_site(name, module.config["in_channels"], module.num_attention_heads)
    if isinstance(module, KAttentionBlock):
        return _attention_site(name, module.attn2.query_dim, module.attn2.heads)
    if isinstance(module, Attention):
        return _attention_site(name, module.query_dim, module.heads)
    return None


def _attention_site(name: str, channels: int, num_heads: int) -> Site:
    """Temporal attention has as many heads as the spatial one, over the same channels."""
    return Site(name, "attention", channels, num_heads, max(1, channels // num_heads))


def _motion_sites(image_model: nn.Module, mid: bool) -> Iterator[Site]:
    """After every layer of the down and up blocks, and in the mid block if `mid`."""
    for part in ("down_blocks", "mid_block", "up_blocks"):
        blocks = image_model.get_submodule(part) if getattr(image_model, part, None) is not None else None
        if blocks is None or (part == "mid_block" and not mid):
            continue
        named = (
            [(part, blocks)]
            if part == "mid_block"
            else [(f"{part}.{key}", one) for key, one in blocks.named_children()]
        )
        for name, block in named:
            yield from _motion_sites_of(name, block)


def _motion_sites_of(block_name: str, block: nn.Module) -> Iterator[Site]:
    resnets = list(getattr(block, "resnets", None) or ())
    attentions = [one for one in getattr(block, "attentions", None) or () if one is not None]
    if block_name == "mid_block":
        # Its first residual block stands alone; without attention, the module goes after the last one.
        layers = [("attentions", index) for index in range(len(attentions))] or [("resnets", len(resnets) - 1)]
    else:
        # A block with one attention for all its layers (AttnSkipUpBlock2D) counts as one without.
        kind = "attentions" if len(attentions) == len(resnets) else "resnets"
        layers = [(kind, index) for index in range(len(resnets))]
    for number, (kind, index) in enumerate(layers):
        yield Site(
            f"{block_name}.{kind}.{index}",
            "motion_module",
            _out_channels(resnets[index]),
            place=f"{block_name}.motion_modules.{number}",
        )


def _out_channels(block: nn.Module) -> int:
    """Of a residual block: its own `out_channels` names the width inside in `ResnetBlockCondNorm2D`."""
    return int(plain_module(block.get_submodule("conv2")).out_channels)  # type: ignore[arg-type]  # a Conv2d's int


def _token_sites(image_model: nn.Module, scheme: Scheme) -> Iterator[Site]:
    """Sites inside diffusers' basic transformer blocks; none in models without them."""
    others = scheme.frames_seen != "own"
    if not (others or scheme.token_attention or scheme.queries):
        return
    blocks = [(name, block) for name, block in image_model.named_modules() if isinstance(block, BasicTransformerBlock)]
    if others and not any(_sees_its_own_frame(block) for _, block in blocks):
        return
    for name, block in blocks:
        own = _sees_its_own_frame(block)
        if others and own:
            yield Site(f"{name}.attn1", "self_attention", block.dim)
        if scheme.queries:
            for attention_name in ("attn1", "attn2") if own else ("attn2",):
                attention = getattr(block, attention_name)
                if attention is not None:
                    yield query_site(f"{name}.{attention_name}", attention)
        if scheme.token_attention:
            site = _attention_site(name, block.dim, block.num_attention_heads)
            yield replace(site, kind="transformer_block")


def _sees_its_own_frame(block: BasicTransformerBlock) -> bool:
    return not block.only_cross_attention


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
