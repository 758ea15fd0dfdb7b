"""Finding the places in an image transformer where temporal layers go.

The rules, for diffusers' `DiTTransformer2DModel`, `PixArtTransformer2DModel`, `SD3Transformer2DModel` and
`FluxTransformer2DModel` (double and single blocks):

* After every transformer block, on its image tokens, goes a temporal transformer block (Latte) or a temporal attention
  (the schemes that have one after every spatial attention). Text tokens pass by: every frame has the same text.
* There are no spatial convolutions to follow but the patch embedding, in which patches do not overlap. A scheme of
  convolutions is refused; one that wants them in residual blocks only ("lean") has its attention and frame rate here.
* Self-attention that sees all frames ("all"): that of every block, joint attention with the text too, and the second,
  image-only attention of SD3.5's dual blocks. Keys from the first or the previous frame instead of the own one are
  defined for self-attention without text, and so for DiT and PixArt only, as are changed queries.
* Spacetime patches: after the patch embedding (with positions, where all frames are seen) and around the last
  projection.
* The frame-rate embedding is added to that of the time step: `time_text_embed`, PixArt's `adaln_single.emb`, and in
  diffusers' DiT, which has one in every block, to each of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffusers import (
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
)
from torch import nn

from inflate.errors import InputError
from inflate.inflater.dit_calls import dit_in_channels
from inflate.inflater.schemes import Scheme
from inflate.inflater.sites import Site
from inflate.inflater.unet_sites import token_sites


@dataclass(frozen=True)
class _Anatomy:
    """Names of a transformer's parts."""

    blocks: tuple[str, ...] = ("transformer_blocks",)
    self_attentions: tuple[str, ...] = ("attn",)  # in a block, those that are there
    tokens: str = "pos_embed"  # its output is the tokens of a picture, (N, tokens, D)
    last: str = "proj_out"
    time_embedding: str = "time_text_embed"
    in_every_block: bool = False  # whether that is in every block


_ANATOMIES: dict[type[nn.Module], _Anatomy] = {
    DiTTransformer2DModel: _Anatomy(
        self_attentions=("attn1",), last="proj_out_2", time_embedding="norm1.emb", in_every_block=True
    ),
    PixArtTransformer2DModel: _Anatomy(self_attentions=("attn1",), time_embedding="adaln_single.emb"),
    SD3Transformer2DModel: _Anatomy(self_attentions=("attn", "attn2")),
    FluxTransformer2DModel: _Anatomy(blocks=("transformer_blocks", "single_transformer_blocks"), tokens="x_embedder"),
}


def find_dit_sites(image_model: nn.Module, scheme: Scheme) -> list[Site]:
    """The sites of a transformer under `scheme`; may be empty.

    Raises:
        InputError: the scheme has no meaning in a transformer, or in this one.
    """
    anatomy = next(parts for kind, parts in _ANATOMIES.items() if isinstance(image_model, kind))
    _check_scheme(image_model, scheme)
    config: Any = image_model.config
    heads, head_dim = int(config.num_attention_heads), int(config.attention_head_dim)
    width = heads * head_dim
    names = [
        f"{part}.{number}" for part in anatomy.blocks for number, _ in image_model.get_submodule(part).named_children()
    ]
    sites: list[Site] = []
    if scheme.embeds_numbers:
        sites.extend(_time_sites(anatomy, names, width))
    if scheme.patch_frames > 1 or (scheme.frames_seen == "all" and scheme.position != "none"):
        sites.append(Site(anatomy.tokens, "patch_in", width, in_channels=dit_in_channels(image_model)))
    if scheme.frames_seen == "all":
        for name in names:
            block = image_model.get_submodule(name)
            present = (part for part in anatomy.self_attentions if getattr(block, part, None) is not None)
            sites.extend(Site(f"{name}.{part}", "self_attention", width) for part in present)
    else:
        sites.extend(site for site in token_sites(image_model, scheme) if site.kind != "transformer_block")
    for name in names:
        if scheme.attention or scheme.token_attention:
            sites.append(Site(name, "transformer_block", width, heads, head_dim))
        if scheme.temporal_blocks:
            sites.append(Site(name, "temporal_block", width, heads, head_dim))
    if scheme.patch_frames > 1:
        sites.append(Site(anatomy.last, "patch_out", width))
    return sites


def _time_sites(anatomy: _Anatomy, names: list[str], width: int) -> Iterator[Site]:
    """One embedding of the frame rate, added wherever the time step is embedded."""
    for start in [f"{name}." for name in names] if anatomy.in_every_block else [""]:
        yield Site(start + anatomy.time_embedding, "time_embedding", width, place="time_embedding")


def _check_scheme(image_model: nn.Module, scheme: Scheme) -> None:
    start = f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}"
    if scheme.convolution and (scheme.every_convolution or not scheme.attention):
        raise InputError(
            f"{start}: it puts temporal convolutions after spatial ones, and a transformer has none; "
            "choose 'latte', 'lean' or 'spacetime-dit'"
        )
    joint = isinstance(image_model, SD3Transformer2DModel | FluxTransformer2DModel)
    if joint and (scheme.frames_seen in ("first", "first-and-previous") or scheme.queries):
        raise InputError(
            f"{start}: it changes what self-attention of the picture alone sees, and here text and picture attend "
            "together; choose 'latte' or 'spacetime-dit'"
        )
    if scheme.frames_seen == "all" and scheme.position not in ("sinusoidal", "none"):
        raise InputError(
            f"{start}: tokens that see all frames have sinusoidal positions or none; set position to one of them"
        )
