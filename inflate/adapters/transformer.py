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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from einops import rearrange
from torch import Tensor, nn

from inflate.adapters.adapter import Adapter
from inflate.adapters.inputs import NUM_TEXT_TOKENS, RandomSource
from inflate.errors import InputError
from inflate.layers import PictureTokens, Place, Where, plain_module


@dataclass(frozen=True)
class Blocks:
    """One list of alike transformer blocks: where its attentions are, and what a block takes and answers."""

    name: str  # dotted name of the list in the image model
    self_attentions: tuple[str, ...] = ("attn",)  # in a block, those that are there
    cross_attentions: tuple[str, ...] = ()  # likewise
    convolutions: tuple[str, ...] = ()  # in a block's feed-forward, the spatial ones that see more than a pixel
    # What a block is modulated by, (B*F, D): an argument's name, or a function of block and arguments by name.
    condition: str | Callable[[nn.Module, dict[str, Any]], Tensor] = "temb"
    shared_condition: bool = False  # whether that is projected already, to the six modulations of a block
    answer: int = -1  # which of a block's several answers is the picture's


class Transformer(Adapter):
    """An image transformer.

    Attributes:
        blocks: its lists of blocks, in the order of computation.
        joint: whether text and picture attend together.
        embedding: the module whose output is a picture's tokens, (N, tokens, D).
        last: the last projection of tokens.
        others_at: `embedding`, `last` and lists of blocks where tokens beside the picture's own pass.
        picture_is: whether the picture's own are the first of those, or the last.
        time_embedding: the module whose output, (N, condition's D), is added to for the frame rate.
        features: the order of what is answered for a token: p and q are rows and columns of its patch, c channels.
        packed: whether the model takes and answers tokens, and no pictures.
        usual_patch: its `patch_size` where the config does not say.
        largest_condition: most channels that the time step is embedded in; 0 for as many as the tokens have.
        sample_name, timestep_name: its arguments for pictures and time steps.
        texts: its arguments (N, tokens, D), each with the name of D in its config.
        pooled: its arguments (N, D), likewise.
        usual_guidance: a guidance scale, for those that take it as an argument.
    """

    family = "transformer"
    refused: ClassVar[dict[Where, str]] = {
        "layer": "motion modules go between the layers of a UNet's blocks",
        "mid_layer": "motion modules go between the layers of a UNet's blocks",
        "residual_block": "temporal residual blocks go after those of a UNet",
        "conv_in": "extra input channels go beside the first convolution of a UNet",
        "convolution": "it puts temporal convolutions after spatial ones, and a transformer has none",
        "feed_forward": "it puts temporal convolutions after those of feed-forwards, and here they have none",
    }
    instead = "'latte', 'lean' or 'spacetime-dit'"
    given = ("self", "hidden_states", "timestep", "return_dict")
    blocks: ClassVar[tuple[Blocks, ...]] = (Blocks("transformer_blocks"),)
    joint: ClassVar[bool] = True
    embedding: ClassVar[str] = "pos_embed"
    last: ClassVar[str] = "proj_out"
    others_at: ClassVar[tuple[str, ...]] = ()
    picture_is: ClassVar[Literal["first", "last"]] = "last"
    time_embedding: ClassVar[str] = "time_text_embed"
    features: ClassVar[str] = "p q c"
    packed: ClassVar[bool] = False
    usual_patch: ClassVar[int] = 2
    largest_condition: ClassVar[int] = 0
    sample_name: ClassVar[str] = "hidden_states"
    timestep_name: ClassVar[str] = "timestep"
    texts: ClassVar[tuple[tuple[str, str], ...]] = ()
    pooled: ClassVar[tuple[tuple[str, str], ...]] = ()
    usual_guidance: ClassVar[float] = 3.5

    @property
    def channels(self) -> int:
        """Of a picture: packed tokens have those of all cells of their patch."""
        return super().channels // (self.patch_size**2 if self.packed else 1)

    @property
    def patch_size(self) -> int:
        """As the config says; it may leave out what is usual."""
        return int(self.config.get("patch_size") or self.usual_patch)

    @property
    def num_heads(self) -> int:
        """Of an attention."""
        return int(self.config.num_attention_heads)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_heads * int(self.config.attention_head_dim)

    @property
    def condition_dim(self) -> int:
        """Channels of the embedded time step."""
        return min(self.width, self.largest_condition or self.width)

    @property
    def largest_size(self) -> int:
        """Latent cells along a side for which there are positions in a table; 0 for as many as one likes."""
        return self.patch_size * min(self.config.get("axes_lens", (0, 0))[1:])

    def examples(self, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        told = {name: source.normal(NUM_TEXT_TOKENS, int(self.config[width])) for name, width in self.texts}
        told |= {name: source.normal(int(self.config[width])) for name, width in self.pooled}
        if self.config.get("guidance_embeds"):
            told["guidance"] = source.integers(1, 8).to(source.dtype)
        return told

    @cached_property
    def _conditions(self) -> tuple[str, ...]:
        """Arguments that the model cannot do without."""
        return tuple(self.examples(RandomSource(torch.device("meta"), torch.float32, 1), (0, 0)))

    def call(self, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        size = (pictures.shape[-2], pictures.shape[-1])
        self.check_size(*size)
        arguments = self._checked(arguments, pictures) | self.own_arguments(pictures, arguments)
        arguments[self.sample_name] = self.sample_argument(pictures)
        arguments[self.timestep_name] = _each(timestep, pictures)
        output = self.model(**arguments)
        return Transformer2DModelOutput(sample=self.unpatch(output.sample, size)) if self.packed else output

    def _checked(self, arguments: dict[str, Any], pictures: Tensor) -> dict[str, Any]:
        """`arguments`, the guidance scale a number for each picture; `InputError` if one is missing, or of no use."""
        name, guidance = self.image_model_class.__name__, arguments.get("guidance")
        for condition in self._conditions:
            if condition != "guidance" and arguments.get(condition) is None:
                raise InputError(f"{name} cannot do without the argument {condition!r}; pass it")
        if (guidance is not None) != ("guidance" in self._conditions):
            needs = f"needs guidance: pass guidance={self.usual_guidance}, say"
            raise InputError(f"this {name} {needs if guidance is None else 'takes no guidance: leave it out'}")
        return dict(arguments) if guidance is None else {**arguments, "guidance": _each(guidance, pictures)}

    def sample_argument(self, pictures: Tensor) -> Any:
        """Pictures as the model takes them: as they are, or their patches, the reverse of `unpatch`."""
        patch, pattern = self.patch_size, f"n c (h p) (w q) -> n (h w) ({self.features})"
        return rearrange(pictures, pattern, p=patch, q=patch) if self.packed else pictures

    def own_arguments(self, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's pipeline tells it beside the user's `arguments`, such as the places of tokens."""
        return {}

    def check_size(self, height: int, width: int) -> None:
        """`InputError` at sizes that diffusers would crop without a word, or fail at with an obscure one."""
        patch, largest, name = self.patch_size, self.largest_size, self.image_model_class.__name__
        if height % patch or width % patch:
            raise InputError(f"{name} needs a height and a width divisible by {patch}, got {height} x {width}")
        if largest and max(height, width) > largest:
            raise InputError(f"{name} has positions for {largest} x {largest} at most, got {height} x {width}")

    def unpatch(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        patch, pattern = self.patch_size, f"n (h w) ({self.features}) -> n c (h p) (w q)"
        return rearrange(features, pattern, h=size[0] // patch, p=patch, q=patch)

    def picture_tokens(
        self, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        if not self.others_at:
            return None
        count = self.num_tokens(size)
        return PictureTokens(num_pictures, slice(0, count) if self.picture_is == "first" else slice(-count, None))

    def num_tokens(self, size: tuple[int, int]) -> int:
        """Of a picture of `size`."""
        return size[0] * size[1] // self.patch_size**2

    def places(self) -> Iterator[Place]:
        """See `Adapter`; those inside of all blocks, then after them."""
        others, heads, width = self.others_at, self.num_heads, self.width
        named = [
            (f"{blocks.name}.{number}", block, blocks)
            for blocks in self.blocks
            for number, block in self.model.get_submodule(blocks.name).named_children()
        ]
        for name in self.time_embeddings():  # one layer, wherever the time step is embedded
            yield Place(name, ("time_embedding",), self.condition_dim, layer_name="time_embedding")
        yield Place(
            self.embedding,
            ("patch_in",),
            width,
            in_channels=self.channels,
            patch_size=self.patch_size,
            with_others=self.embedding in others,
        )
        for name, block, blocks in named:
            yield from self._places_inside(name, block, blocks)
        for name, _, blocks in named:
            yield Place(
                name,
                ("transformer_block", "modulated_block", "attention"),
                *(width, heads, width // heads),
                answer=blocks.answer,
                with_others=blocks.name in others,
                condition=blocks.condition,
                condition_dim=None if blocks.shared_condition else self.condition_dim,
            )
        yield Place(self.last, ("patch_out",), width, with_others=self.last in others)

    def _places_inside(self, name: str, block: nn.Module, blocks: Blocks) -> Iterator[Place]:
        """Of one block: its attentions, their queries, the convolutions of its feed-forward."""
        modules: dict[str, Any] = dict(block.named_modules())
        seen: tuple[Where, ...] = ("every_attention",) if self.joint else ("every_attention", "self_attention")
        for part in (part for part in blocks.self_attentions if part in modules):
            yield Place(f"{name}.{part}", seen, self.width, gather=self.gather_frames)
            if not self.joint:
                yield query_place(f"{name}.{part}", modules[part])
        for part in (part for part in blocks.cross_attentions if part in modules):
            yield query_place(f"{name}.{part}", modules[part])
        for part in blocks.convolutions:
            channels: Any = plain_module(modules[part]).out_channels
            yield Place(f"{name}.{part}", ("feed_forward",), int(channels))

    def time_embeddings(self) -> list[str]:
        """Names of the modules whose output, (N, condition's D), is added to for the frame rate."""
        return [self.time_embedding]

    def reasons(self) -> dict[Where, str]:
        reasons = dict(self.refused)
        if any(blocks.convolutions for blocks in self.blocks):
            reasons["convolution"] += " but in its feed-forwards"
            del reasons["feed_forward"]
        if self.joint:
            together = (
                "changes what self-attention of the picture alone sees, and here text and picture attend together"
            )
            reasons |= {"self_attention": f"it {together}", "query": f"it {together}"}
        return reasons


def query_place(name: str, attention: Any) -> Place:
    """Beside the query projection of a diffusers `Attention`."""
    return Place(f"{name}.to_q", ("query",), int(attention.inner_dim))


def _each(value: Any, pictures: Tensor) -> Tensor:
    """A number for each picture: `value` is one, or as many as there are pictures."""
    values = torch.as_tensor(value, device=pictures.device).flatten()
    return values.expand(pictures.shape[0]) if values.numel() == 1 else values
