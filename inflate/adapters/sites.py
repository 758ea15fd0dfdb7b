"""Where temporal layers may go: what a site is. Which there are is for each image model's adapter to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

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
class Blocks:
    """One list of alike transformer blocks: where its attentions are, and what a block takes and answers."""

    name: str = ""  # dotted name of the list in the image model
    self_attentions: tuple[str, ...] = ("attn",)  # in a block, those that are there
    cross_attentions: tuple[str, ...] = ()  # likewise
    convolutions: tuple[str, ...] = ()  # in a block's feed-forward, the spatial ones that see more than a pixel
    # What a block is modulated by, (B*F, D): an argument's name, or a function of block and arguments by name.
    condition: str | Callable[[nn.Module, dict[str, Any]], Tensor] = "temb"
    shared_condition: bool = False  # whether that is projected already, to the six modulations of a block
    answer: int = -1  # which of a block's several answers is the picture's


@dataclass(frozen=True)
class Site:
    """One module of the image model after which (or around which) something temporal goes."""

    name: str  # dotted name of the module in the image model
    kind: SiteKind
    channels: int  # channels of the module's output
    num_heads: int = 0  # attention only
    head_dim: int = 0  # attention only
    in_channels: int = 0  # query and patch_in only
    place: str = ""  # dotted name of the temporal layer where it is not the module's: motion modules count by block
    condition_dim: int = 0  # temporal_block only: channels of what the block is modulated by, unless it is shared
    blocks: Blocks = Blocks()  # transformer_block and temporal_block only: the list that the block is in
    with_others: bool = False  # whether the module's tokens are not the picture's own alone

    @property
    def key(self) -> str:
        """The temporal layer's name in `InflatedModel.temporal` (module names may not contain dots)."""
        return (self.place or self.name).replace(".", "-") + _SUFFIX.get(self.kind, "")


def plain_module(module: nn.Module) -> nn.Module:
    """`module` itself, or the image model's own module inside the wrapper that PEFT put around it."""
    while isinstance(getattr(module, "base_layer", None), nn.Module):
        module = module.get_submodule("base_layer")
    return module
