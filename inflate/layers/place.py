"""Places in an image model where something temporal may go. Which there are is for each model's adapter to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Where = Literal[
    "convolution",  # after a spatial convolution that sees more than a pixel
    "last_convolution",  # after the last one of a residual block
    "feed_forward",  # after the one in a transformer block's feed-forward
    "residual_block",  # after a spatial residual block
    "attention",  # after a spatial attention block; in transformers after every block, on its tokens
    "transformer_block",  # after a transformer block, on its tokens
    "modulated_block",  # after one that is modulated by a condition
    "layer",  # after a layer of a UNet's down or up block: its attention, or its residual block where it has none
    "mid_layer",  # after the layer of its mid block
    "query",  # beside a query projection
    "self_attention",  # around a spatial self-attention of the picture's tokens alone
    "every_attention",  # around that, and around one in which text and picture attend together
    "time_embedding",  # after the embedding of the time step
    "conv_in",  # beside the first convolution
    "patch_in",  # after a patch embedding
    "patch_out",  # after the last projection of tokens
]


@dataclass(frozen=True)
class Place:
    """One module of an image model, and what a layer must know to be built and to run there."""

    name: str  # dotted name of the module
    where: tuple[Where, ...]  # what the place counts as
    channels: int  # of what the module answers
    num_heads: int = 0  # of a spatial attention
    head_dim: int = 0  # likewise
    in_channels: int = 0  # patch_in: of a picture
    patch_size: int = 1  # patch_in: height and width of a patch
    layer_name: str = ""  # dotted name of the layer where it is not the module's
    answer: int = 0  # which of several tensors that the module answers is the picture's
    with_others: bool = False  # whether the module's tokens are not the picture's own alone
    # What a transformer block is modulated by, (B*F, C): an argument's name, or a function of block and arguments.
    condition: "str | Callable[[nn.Module, dict[str, Any]], Tensor]" = ""
    condition_dim: int | None = None  # C; None where it is projected already, to the six modulations of a block
    # An attention's arguments by name, and the frames of a video, to those with the tokens of all frames in a row.
    gather: Callable[[dict[str, Any], int], dict[str, Any]] | None = None


def plain_module(module: nn.Module) -> nn.Module:
    """`module` itself, or the image model's own module inside the wrapper that PEFT put around it."""
    while isinstance(getattr(module, "base_layer", None), nn.Module):
        module = module.get_submodule("base_layer")
    return module
