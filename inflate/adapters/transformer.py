"""What diffusers' image transformers have in common: where temporal layers go, and how pictures go in and come out.

The rules for the sites:

* After every transformer block, on its image tokens, goes a temporal transformer block (Latte) or a temporal attention
  (the schemes that have one after every spatial attention). Text tokens pass by: every frame has the same text.
* There are no spatial convolutions to follow but the patch embedding, in which patches do not overlap. A scheme of
  convolutions is refused; one that wants them in residual blocks only ("lean") has its attention and frame rate here.
* Self-attention that sees all frames ("all"): that of every block, joint attention with the text too. Keys from the
  first or the previous frame instead of the own one are defined for self-attention without text, as are changed
  queries.
* Spacetime patches: after the patch embedding (with positions, where all frames are seen) and after the last
  projection.
* The frame-rate embedding is added to that of the time step.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from inflate.adapters.adapter import Adapter, PictureTokens, each, require
from inflate.adapters.inputs import NUM_TIMESTEPS, RandomSource
from inflate.adapters.sites import Blocks, Site, plain_module
from inflate.errors import InputError
from inflate.schemes import Scheme


class Transformer(Adapter):
    """An image transformer.

    Attributes:
        blocks: its lists of blocks, in the order of computation.
        joint: whether text and picture attend together.
        embedding: the module whose output is a picture's tokens, (N, tokens, D).
        last: the last projection of tokens.
        embedding_with_others, last_with_others: whether tokens beside the picture's own pass there.
        time_embedding: the module whose output, (N, condition's D), is added to for the frame rate.
        features: the order of what is answered for a token: p and q are rows and columns of its patch, c channels.
        usual_patch: its `patch_size` where the config does not say.
        conditions: arguments that the model cannot do without.
    """

    family = "transformer"
    given = ("self", "hidden_states", "timestep", "return_dict")
    refused_fields: ClassVar[dict[str, str]] = {
        "motion_modules": "motion modules go between the layers of a UNet's blocks",
        "residual_blocks": "temporal residual blocks go after those of a UNet",
        "extra_in_channels": "extra input channels go beside the first convolution of a UNet",
    }
    instead = "'latte', 'lean' or 'spacetime-dit'"
    blocks: ClassVar[tuple[Blocks, ...]] = (Blocks("transformer_blocks"),)
    joint: ClassVar[bool] = True
    embedding: ClassVar[str] = "pos_embed"
    last: ClassVar[str] = "proj_out"
    time_embedding: ClassVar[str] = "time_text_embed"
    features: ClassVar[str] = "p q c"
    embedding_with_others: ClassVar[bool] = False
    last_with_others: ClassVar[bool] = False
    usual_patch: ClassVar[int] = 2
    conditions: ClassVar[tuple[str, ...]] = ("encoder_hidden_states",)

    @abstractmethod
    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """Example arguments beside pictures of `size` and time steps."""

    def in_channels(self, image_model: nn.Module) -> int:
        """See `Adapter`."""
        config: Any = image_model.config
        return self.channels(config)

    def patch_size(self, config: Mapping[str, Any]) -> int:
        """As the config says; it may leave out what is usual."""
        return int(config.get("patch_size") or self.usual_patch)

    def num_heads(self, config: Any) -> tuple[int, int]:
        """Heads of an attention, and channels of each."""
        return int(config.num_attention_heads), int(config.attention_head_dim)

    def condition_dim(self, config: Any) -> int:
        """Channels of the embedded time step: the width of the tokens."""
        heads, head_dim = self.num_heads(config)
        return heads * head_dim

    def random_inputs(
        self, image_model: nn.Module, batch: int, size: tuple[int, int], generator: torch.Generator | None
    ) -> dict[str, Any]:
        """See `Adapter`."""
        source = RandomSource(image_model, batch, generator)
        sample = source.normal(self.in_channels(image_model), *size)
        timestep = self.model_timestep(source.integers(1, NUM_TIMESTEPS), source.dtype)
        return {"sample": sample, "timestep": timestep, **self.random_conditions(image_model, source, size)}

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        self.check_size(image_model, *pictures.shape[-2:])
        require(image_model, arguments, self.conditions)
        return image_model(hidden_states=pictures, timestep=each(timestep, pictures), **arguments)

    def check_size(self, image_model: nn.Module, height: int, width: int) -> None:
        """`InputError` at sizes that diffusers would crop without a word, or fail at with an obscure one."""
        config: Any = image_model.config
        patch, class_name = self.patch_size(config), type(image_model).__name__
        if height % patch or width % patch:
            raise InputError(f"{class_name} needs a height and a width divisible by {patch}, got {height} x {width}")
        largest = self.largest_size(config)
        if largest and max(height, width) > largest:
            raise InputError(f"{class_name} has positions for {largest} x {largest} at most, got {height} x {width}")

    def largest_size(self, config: Any) -> int:
        """Latent cells along a side for which there are positions; 0 for as many as one likes."""
        return 0

    def unpatch(self, features: Tensor, image_model: nn.Module, size: tuple[int, int]) -> Tensor:
        """See `Adapter`."""
        config: Any = image_model.config
        patch = self.patch_size(config)
        pattern = f"n (h w) ({self.features}) -> n c (h p) (w q)"
        return rearrange(features, pattern, h=size[0] // patch, p=patch, q=patch)

    def patch(self, pictures: Tensor, image_model: nn.Module) -> Tensor:
        """Pictures as their patches, the reverse of `unpatch`, for a model that takes tokens."""
        config: Any = image_model.config
        patch = self.patch_size(config)
        return rearrange(pictures, f"n c (h p) (w q) -> n (h w) ({self.features})", p=patch, q=patch)

    def last_tokens(self, image_model: nn.Module, size: tuple[int, int], num_pictures: int) -> PictureTokens:
        """The picture's tokens where they stand behind all others."""
        return PictureTokens(num_pictures, slice(-self.num_tokens(image_model, size), None))

    def first_tokens(self, image_model: nn.Module, size: tuple[int, int], num_pictures: int) -> PictureTokens:
        """The picture's tokens where they stand before all others."""
        return PictureTokens(num_pictures, slice(0, self.num_tokens(image_model, size)))

    def num_tokens(self, image_model: nn.Module, size: tuple[int, int]) -> int:
        """Of a picture of `size`."""
        config: Any = image_model.config
        return size[0] * size[1] // self.patch_size(config) ** 2

    def find_sites(self, image_model: nn.Module, scheme: Scheme) -> list[Site]:
        """See `Adapter`."""
        self.check_scheme(image_model, scheme)
        config: Any = image_model.config
        heads, head_dim = self.num_heads(config)
        width = heads * head_dim
        named = [
            (f"{blocks.name}.{number}", block, blocks)
            for blocks in self.blocks
            for number, block in image_model.get_submodule(blocks.name).named_children()
        ]
        sites: list[Site] = []
        if scheme.embeds_numbers:  # one layer, wherever the time step is embedded
            embeddings = self.time_embeddings(image_model)
            place, condition_dim = "time_embedding", self.condition_dim(config)
            sites.extend(Site(name, "time_embedding", condition_dim, place=place) for name in embeddings)
        if scheme.patch_frames > 1 or (scheme.frames_seen == "all" and scheme.position != "none"):
            channels = self.in_channels(image_model)
            sites.append(
                Site(self.embedding, "patch_in", width, in_channels=channels, with_others=self.embedding_with_others)
            )
        for name, block, blocks in named:
            sites.extend(_sites_inside(name, block, blocks, scheme, width))
        for name, _, blocks in named:
            site = Site(
                name, "transformer_block", width, heads, head_dim, blocks=blocks, with_others=blocks.with_others
            )
            if scheme.attention or scheme.token_attention:
                sites.append(site)
            if scheme.temporal_blocks:
                sites.append(replace(site, kind="temporal_block", condition_dim=self.condition_dim(config)))
        if scheme.patch_frames > 1:
            sites.append(Site(self.last, "patch_out", width, with_others=self.last_with_others))
        return sites

    def time_embeddings(self, image_model: nn.Module) -> list[str]:
        """Names of the modules whose output, (N, condition's D), is added to for the frame rate."""
        return [self.time_embedding]

    def check_scheme(self, image_model: nn.Module, scheme: Scheme) -> None:
        """`InputError` where the scheme has no meaning in a transformer, or in this one."""
        start = f"scheme {scheme.name!r} finds no place in this {type(image_model).__name__}"
        inside = any(blocks.convolutions for blocks in self.blocks)
        if scheme.convolution and (scheme.every_convolution or not scheme.attention):
            but = " but in its feed-forwards" if inside else ""
            raise InputError(
                f"{start}: it puts temporal convolutions after spatial ones, and a transformer has none{but}; "
                f"choose {self.instead}"
            )
        if scheme.feed_forward_convolution and not inside:
            raise InputError(
                f"{start}: it puts temporal convolutions after the spatial ones of feed-forwards, and here they have "
                f"none; choose {self.instead}"
            )
        if self.joint and (scheme.frames_seen in ("first", "first-and-previous") or scheme.queries):
            raise InputError(
                f"{start}: it changes what self-attention of the picture alone sees, and here text and picture attend "
                "together; choose 'latte' or 'spacetime-dit'"
            )
        if scheme.frames_seen == "all" and scheme.position not in ("sinusoidal", "none"):
            raise InputError(
                f"{start}: tokens that see all frames have sinusoidal positions or none; set position to one of them"
            )


def _sites_inside(name: str, block: nn.Module, blocks: Blocks, scheme: Scheme, width: int) -> Iterator[Site]:
    """Of one block: its attentions, its queries, the convolutions of its feed-forward."""
    modules = dict(block.named_modules())
    for part in blocks.self_attentions:
        if part in modules:
            if scheme.frames_seen != "own":
                yield Site(f"{name}.{part}", "self_attention", width)
            if scheme.queries:
                yield query_site(f"{name}.{part}", modules[part])
    for part in blocks.cross_attentions:
        if part in modules and scheme.queries:
            yield query_site(f"{name}.{part}", modules[part])
    if scheme.feed_forward_convolution:
        for part in blocks.convolutions:
            channels = plain_module(modules[part]).out_channels
            yield Site(f"{name}.{part}", "convolution", int(channels))  # type: ignore[arg-type]  # a Conv2d's int


def query_site(name: str, attention: Any) -> Site:
    """Beside the query projection of a diffusers `Attention`."""
    return Site(f"{name}.to_q", "query", int(attention.inner_dim), in_channels=int(attention.query_dim))
