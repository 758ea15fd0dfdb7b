"""The frame decoder: a small network that mends new frames by looking at their known neighbours.

LDMVFI (arXiv:2303.09508) and ToonCrafter (arXiv:2405.17933) give the autoencoder's decoder the
neighbouring frames. Here the autoencoder stays as it is, and a `UNet2DModel` corrects what :func:`decode_beside` makes,
in one evaluation per frame.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional

from inflate.errors import InputError
from interp.detail import PICTURES_AT_ONCE, Neighbours

PLANES = 22  # residual decode, plain decode, both neighbours, both moved, their blend: 3 each; time


def new_frame_decoder(
    block_out_channels: Sequence[int] = (32, 64), layers_per_block: int = 1, patch: int = 2, norm_num_groups: int = 8
) -> UNet2DModel:
    """A frame decoder that changes nothing yet: its last layer is zero.

    Args:
        block_out_channels: width per resolution, the first at ``1 / patch`` of the frame's.
        layers_per_block: residual blocks per resolution.
        patch: side of the square of pixels that become channels.
        norm_num_groups: of its group norms; the widths must be multiples.
    """
    blocks = len(block_out_channels)
    network = UNet2DModel(
        in_channels=PLANES * patch**2,
        out_channels=3 * patch**2,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * blocks,
        up_block_types=("UpBlock2D",) * blocks,
        mid_block_type=None,
        add_attention=False,
        norm_num_groups=norm_num_groups,
        time_embedding_dim=32,
    )
    last: Any = network.conv_out
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def patch_of(network: Any) -> int:
    """Side of the square of pixels that become channels.

    Raises:
        InputError: the network's channels are not those of a frame decoder.
    """
    made, told = int(network.config.out_channels), int(network.config.in_channels)
    patch = math.isqrt(made // 3)
    if patch < 1 or made != 3 * patch**2 or told != PLANES * patch**2:
        raise InputError(
            f"A frame decoder takes {PLANES} p^2 channels and gives 3 p^2 for a whole number p; "
            f"this one has {told} and {made}."
        )
    return patch


def refine(network: Any, residual: Tensor, plain: Tensor, neighbours: Neighbours) -> Tensor:
    """The residual decode (N, 3, H, W) with the network's correction, float32; gradients flow where they are on.

    Raises:
        InputError: not a frame decoder, or sides that it cannot halve as often as it must.
    """
    patch = patch_of(network)
    height, width = residual.shape[-2:]
    multiple = patch * 2 ** (len(network.config.block_out_channels) - 1)
    if height % multiple or width % multiple:
        raise InputError(
            f"The frame decoder takes frames whose sides are multiples of {multiple} px; these are {height} x {width}."
        )
    time = neighbours.time[:, None, None, None].expand(-1, 1, height, width)
    around = [neighbours.previous, neighbours.following, neighbours.from_previous, neighbours.from_following]
    parts = [residual, plain, *around, neighbours.blend, time]
    inputs = functional.pixel_unshuffle(torch.cat(parts, dim=1), patch).to(network.dtype)
    corrections = [network(part, 0).sample.float() for part in inputs.split(PICTURES_AT_ONCE)]
    return residual + functional.pixel_shuffle(torch.cat(corrections), patch)
