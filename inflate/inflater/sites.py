"""Where temporal layers may go: what a site is. The rules are in `unet_sites` and `dit_sites`."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

SiteKind = Literal[
    "convolution",  # after a spatial convolution
    "attention",  # after a spatial attention block
    "motion_module",  # after a layer of a block (its attention, or its residual block where it has none)
    "residual_block",  # after a spatial residual block
    "transformer_block",  # after a transformer block, on its tokens
    "query",  # beside a query projection
    "self_attention",  # a spatial self-attention that sees other frames too: no layer of its own
    "time_embedding",
    "extra_input",  # beside the first convolution
    "temporal_block",  # after a transformer block, on its tokens, and with its condition
    "patch_in",  # after a patch embedding
    "patch_out",  # after the last projection of tokens
]
# Kinds that work with the image model's own weights only.
LAYERLESS: tuple[SiteKind, ...] = ("self_attention",)
_SUFFIX: dict[SiteKind, str] = {"extra_input": "-extra", "query": "-change", "temporal_block": "-block"}


@dataclass(frozen=True)
class Site:
    """One module of the image model after which (or around which) something temporal goes."""

    name: str  # dotted name of the module in the image model
    kind: SiteKind
    channels: int  # channels of the module's output
    num_heads: int = 0  # attention only
    head_dim: int = 0  # attention only
    in_channels: int = 0  # query only
    place: str = ""  # dotted name of the temporal layer where it is not the module's: motion modules count by block

    @property
    def key(self) -> str:
        """The temporal layer's name in `InflatedModel.temporal` (module names may not contain dots)."""
        return (self.place or self.name).replace(".", "-") + _SUFFIX.get(self.kind, "")


def plain_module(module: nn.Module) -> nn.Module:
    """`module` itself, or the image model's own module inside the wrapper that PEFT put around it."""
    while isinstance(getattr(module, "base_layer", None), nn.Module):
        module = module.get_submodule("base_layer")
    return module
