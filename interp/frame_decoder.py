"""The frame decoder: a small network that makes new frames of their known neighbours and of what ↑F's latents say.

LDMVFI (arXiv:2303.09508) and ToonCrafter (arXiv:2405.17933) give the autoencoder's decoder the neighbouring frames.
Here the autoencoder stays as it is, and a ``UNet2DModel`` looks at its decode and at four known frames, in one
evaluation per frame. Like the networks of frame interpolation (IFNet, arXiv:2011.06294) it says from where to fetch
each pixel in the two neighbours, correcting the optical flow, and how to blend them; beside that, how much of the
decode to take, and what to add.

How far latents can be trusted is told, as the noise level is in super-resolution. Near a known frame pixels say more
than ↑F, far from one only ↑F says anything: see :func:`trust_at`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional

from inflate.errors import InputError
from interp.detail import PICTURES_AT_ONCE, decode_beside
from interp.neighbours import NUMBERS, Neighbours, move

PLANES = 9 * 3 + 2 * 2 + NUMBERS + 1
"""Residual and plain decode, four neighbours, two of them moved, their blend: 3 each; two flows: 2 each; the numbers of
the place; trust."""

OUTPUTS = 2 + 2 + 1 + 1 + 3
"""Changes of the two flows; of the logit of the blend; the logit of the decode's share; what to add."""

NEAR, FAR = 0.2, 0.5
"""Seconds from the nearest known frame up to which latents are not trusted at all, and from which they are wholly."""

_FLOW_UNIT = 8.0  # pixels per unit of a flow plane
_DIFFERENCE = 2.0  # by which differences from the blend are scaled up
_EDGE = 0.02  # a share of 0 has no logit


def trust_at(seconds: Tensor) -> Tensor:
    """How far to trust the latents of frames so many seconds from the nearest known one, from 0 to 1.

    Measured on the bundled family, ↑F's latents are further from the truth than the flow blend's at every noise level
    for frames 1/24 s to 1/12 s away.
    """
    return ((seconds - NEAR) / (FAR - NEAR)).clamp(0, 1)


def new_frame_decoder(
    block_out_channels: Sequence[int] = (40, 48, 64),
    layers_per_block: int = 1,
    patch: int = 2,
    norm_num_groups: int = 8,
) -> UNet2DModel:
    """A frame decoder that makes the blend yet: its last layer is zero.

    Args:
        block_out_channels: width per resolution, the first at ``1 / patch`` of the frame's.
        layers_per_block: residual blocks per resolution.
        patch: side of the square of pixels that become channels.
        norm_num_groups: of its group norms; the widths must be multiples.
    """
    blocks = len(block_out_channels)
    network = UNet2DModel(
        in_channels=PLANES * patch**2,
        out_channels=OUTPUTS * patch**2,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * blocks,
        up_block_types=("UpBlock2D",) * blocks,
        mid_block_type=None,
        add_attention=False,
        norm_num_groups=norm_num_groups,
        # A large epsilon makes the norms nearly linear. True ones take away how different the neighbours are, and the
        # network learns nothing: one batch of 29.1 dB, 120 updates: 28.9 dB with 1e-5, 31.8 dB with 1.
        norm_eps=1.0,
        time_embedding_dim=32,
    )
    last: Any = network.conv_out
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def sides_of(config: Mapping[str, Any]) -> int:
    """What both sides of frames must be multiples of, in pixels, told from a frame decoder's config."""
    return patch_of(config) * 2 ** (len(config["block_out_channels"]) - 1)


def patch_of(config: Mapping[str, Any]) -> int:
    """Side of the square of pixels that become channels, told from a frame decoder's config.

    Raises:
        InputError: the network's channels are not those of a frame decoder.
    """
    made, told = int(config["out_channels"]), int(config["in_channels"])
    patch = math.isqrt(made // OUTPUTS)
    if patch < 1 or made != OUTPUTS * patch**2 or told != PLANES * patch**2:
        raise InputError(
            f"A frame decoder takes {PLANES} p^2 channels and gives {OUTPUTS} p^2 for a whole number p; "
            f"this one has {told} and {made}."
        )
    return patch


def refine(network: Any, neighbours: Neighbours, trust: Tensor, residual: Tensor, plain: Tensor) -> Tensor:
    """New frames (N, 3, H, W), float32; gradients flow where they are on.

    Args:
        network: a frame decoder.
        neighbours: of the N new frames.
        trust: (N,), from 0 to 1. Where it is 0 the decodes are not looked at.
        residual: what :func:`interp.detail.decode_beside` makes, (N, 3, H, W).
        plain: likewise.

    Raises:
        InputError: not a frame decoder, or sides that it cannot halve as often as it must.
    """
    patch, multiple = patch_of(network.config), sides_of(network.config)
    height, width = residual.shape[-2:]
    if height % multiple or width % multiple:
        raise InputError(
            f"The frame decoder takes frames whose sides are multiples of {multiple} px; these are {height} x {width}."
        )
    share, blend = trust[:, None, None, None], neighbours.blend
    residual, plain = (torch.where(share > 0, decode, blend) for decode in (residual, plain))
    inputs = functional.pixel_unshuffle(_planes(neighbours, blend, share, residual, plain), patch).to(network.dtype)
    answers = torch.cat([network(part, 0).sample.float() for part in inputs.split(PICTURES_AT_ONCE)])
    early, late, logit, gate, added = functional.pixel_shuffle(answers, patch).split([2, 2, 1, 1, 3], dim=1)
    from_previous = move(neighbours.previous, neighbours.flow_previous + early)
    from_following = move(neighbours.following, neighbours.flow_following + late)
    time = neighbours.time[:, None, None, None].clamp(_EDGE, 1 - _EDGE)
    fetched = torch.lerp(from_previous, from_following, torch.sigmoid(torch.logit(time) + logit))
    return torch.lerp(fetched, residual, share * torch.sigmoid(gate)) + added


def refine_both_ways(network: Any, neighbours: Neighbours, trust: Tensor, residual: Tensor, plain: Tensor) -> Tensor:
    """The mean of what :func:`refine` makes as time goes and as it would go backwards: one film, whichever way it runs.

    Worth 0.06 dB on the bundled family.
    """
    forwards = refine(network, neighbours, trust, residual, plain)
    return (forwards + refine(network, neighbours.backwards(), trust, residual, plain)) / 2


def decode_trusted(vae: Any | None, latents: Tensor, neighbours: Neighbours, trust: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`interp.detail.decode_beside` of those of N frames that are trusted at all; the blend for the others."""
    residual, plain = neighbours.blend.clone(), neighbours.blend.clone()
    chosen = trust > 0
    if bool(chosen.any()):
        residual[chosen], plain[chosen] = decode_beside(vae, latents[chosen], neighbours.take(chosen))
    return residual, plain


def _planes(neighbours: Neighbours, blend: Tensor, share: Tensor, residual: Tensor, plain: Tensor) -> Tensor:
    """All that the network is told, (N, PLANES, H, W): pictures by what they differ from the blend."""
    height, width = blend.shape[-2:]
    flows = torch.cat([neighbours.flow_previous, neighbours.flow_following], dim=1) / _FLOW_UNIT
    numbers = torch.cat([neighbours.numbers, share.flatten(1)], dim=1)[:, :, None, None].expand(-1, -1, height, width)
    known = [neighbours.previous, neighbours.following, neighbours.before, neighbours.after]
    others = [residual, plain, *known, neighbours.from_previous, neighbours.from_following]
    return torch.cat([blend, *(_DIFFERENCE * (picture - blend) for picture in others), flows, numbers], dim=1)
