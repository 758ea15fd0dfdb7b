"""Finding the places in an image model where temporal layers go.

The rules, for diffusers' `UNet2DConditionModel` and `UNet2DModel`:

* Every spatial convolution with a kernel larger than 1 gets a temporal one after it (Make-A-Video, eq. 4): those of the
  down, mid and up blocks (residual, downsampling and upsampling ones), and `conv_in`.
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
* The frame-rate embedding is added to the output of `time_embedding`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import KAttentionBlock
from torch import nn

from inflate.errors import InputError
from inflate.inflater.schemes import Scheme, resolve_scheme

IMAGE_MODEL_CLASSES: dict[str, type[nn.Module]] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "UNet2DModel": UNet2DModel,
}

SiteKind = Literal["convolution", "attention", "time_embedding", "extra_input"]


@dataclass(frozen=True)
class Site:
    """One module of the image model after which a temporal layer goes."""

    name: str  # dotted name of the module in the image model
    kind: SiteKind
    channels: int  # channels of the module's output
    num_heads: int = 0  # attention only
    head_dim: int = 0  # attention only

    @property
    def key(self) -> str:
        """The temporal layer's name in `InflatedModel.temporal` (module names may not contain dots)."""
        suffix = "-extra" if self.kind == "extra_input" else ""
        return self.name.replace(".", "-") + suffix


def check_image_model(image_model: nn.Module) -> None:
    """Raise `InputError` unless `image_model` is of a class that can be inflated."""
    if not isinstance(image_model, tuple(IMAGE_MODEL_CLASSES.values())):
        raise InputError(
            f"cannot inflate a {type(image_model).__name__}: "
            f"the image model must be one of diffusers' {', '.join(IMAGE_MODEL_CLASSES)}"
        )


def find_sites(image_model: nn.Module, scheme: str | Scheme = "make-a-video") -> tuple[Site, ...]:
    """The sites of `image_model` under `scheme`, in the order of the module tree.

    Raises:
        InputError: the model's class is unknown, or the scheme finds nothing to attach to in it.
    """
    check_image_model(image_model)
    scheme = resolve_scheme(scheme)
    seen: set[int] = set()  # Downsample2D may hold one convolution under two names
    sites: list[Site] = []
    for name, module in image_model.named_children():
        if name in ("down_blocks", "mid_block", "up_blocks", "conv_in") and module is not None:
            sites.extend(_walk(name, module, seen))
    wanted = {kind for kind in ("convolution", "attention") if getattr(scheme, kind)}
    sites = [site for site in sites if site.kind in wanted]
    if not sites:
        raise InputError(
            f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}: "
            "it adds only temporal attention and "
            "the model has no spatial attention; choose a scheme with temporal convolutions"
        )
    if scheme.fps_range is not None:
        # torch's stubs take a module's attributes for tensors or modules; these are numbers.
        embed_dim = int(image_model.get_submodule("time_embedding.linear_2").out_features)  # type: ignore[arg-type]
        sites.append(Site("time_embedding", "time_embedding", embed_dim))
    if scheme.extra_in_channels:
        # As above.
        sites.append(Site("conv_in", "extra_input", int(image_model.conv_in.out_channels)))  # type: ignore[arg-type, union-attr]
    return tuple(sites)


def _walk(name: str, module: nn.Module, seen: set[int]) -> Iterator[Site]:
    """Sites in `module`, depth first; a module that is a site is not entered."""
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
