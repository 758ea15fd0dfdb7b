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
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from einops import rearrange
from torch import Tensor, nn

from inflate.adapters.adapter import Adapter
from inflate.adapters.inputs import NUM_TEXT_TOKENS, NUM_TIMESTEPS, RandomSource
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
    sample_name: ClassVar[str] = "hidden_states"
    timestep_name: ClassVar[str] = "timestep"
    texts: ClassVar[tuple[tuple[str, str], ...]] = ()
    pooled: ClassVar[tuple[tuple[str, str], ...]] = ()
    usual_guidance: ClassVar[float] = 3.5

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

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """Arguments that the model cannot do without."""
        return tuple(name for name, _ in (*self.texts, *self.pooled))

    def random_inputs(
        self, image_model: nn.Module, batch: int, size: tuple[int, int], generator: torch.Generator | None
    ) -> dict[str, Any]:
        """See `Adapter`."""
        source = RandomSource(image_model, batch, generator)
        sample = source.normal(self.in_channels(image_model), *size)
        timestep = self.model_timestep(source.integers(1, NUM_TIMESTEPS), source.dtype)
        return {"sample": sample, "timestep": timestep, **self.random_conditions(image_model, source, size)}

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """Example arguments beside pictures of `size` and time steps."""
        config = image_model.config
        told = {name: source.normal(NUM_TEXT_TOKENS, int(config[width])) for name, width in self.texts}
        told |= {name: source.normal(int(config[width])) for name, width in self.pooled}
        if config.get("guidance_embeds"):
            told["guidance"] = source.integers(1, 8).to(source.dtype)
        return told

    def call(self, image_model: nn.Module, pictures: Tensor, timestep: Any, arguments: dict[str, Any]) -> Any:
        """See `Adapter`."""
        size = (pictures.shape[-2], pictures.shape[-1])
        self.check_size(image_model, *size)
        for name in self.conditions(image_model):
            if arguments.get(name) is None:
                raise InputError(f"{type(image_model).__name__} cannot do without the argument {name!r}; pass it")
        arguments = self._with_guidance(image_model, arguments, pictures) | self.own_arguments(
            image_model, pictures, arguments
        )
        arguments[self.sample_name] = self.sample_argument(pictures, image_model)
        arguments[self.timestep_name] = _each(timestep, pictures)
        output = image_model(**arguments)
        if self.packed:
            return Transformer2DModelOutput(sample=self.unpatch(output.sample, image_model, size))
        return output

    def sample_argument(self, pictures: Tensor, image_model: nn.Module) -> Any:
        """Pictures as the model takes them: as they are, or their patches, the reverse of `unpatch`."""
        config: Any = image_model.config
        patch, pattern = self.patch_size(config), f"n c (h p) (w q) -> n (h w) ({self.features})"
        return rearrange(pictures, pattern, p=patch, q=patch) if self.packed else pictures

    def own_arguments(self, image_model: nn.Module, pictures: Tensor, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's pipeline tells it beside the user's `arguments`, such as the places of tokens."""
        return {}

    def _with_guidance(self, image_model: nn.Module, arguments: dict[str, Any], pictures: Tensor) -> dict[str, Any]:
        """`arguments`, the guidance scale a number for each picture; `InputError` if it is missing, or of no use."""
        config: Any = image_model.config
        guidance, needed = arguments.get("guidance"), bool(config.get("guidance_embeds"))
        if (guidance is not None) != needed:
            needs = f"needs guidance: pass guidance={self.usual_guidance}, say"
            raise InputError(
                f"this {type(image_model).__name__} {needs if needed else 'takes no guidance: leave it out'}"
            )
        return {**arguments, "guidance": _each(guidance, pictures)} if needed else dict(arguments)

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

    def picture_tokens(
        self, image_model: nn.Module, size: tuple[int, int], num_pictures: int, arguments: Mapping[str, Any]
    ) -> PictureTokens | None:
        """See `Adapter`."""
        if not self.others_at:
            return None
        count = self.num_tokens(image_model, size)
        return PictureTokens(num_pictures, slice(0, count) if self.picture_is == "first" else slice(-count, None))

    def num_tokens(self, image_model: nn.Module, size: tuple[int, int]) -> int:
        """Of a picture of `size`."""
        config: Any = image_model.config
        return size[0] * size[1] // self.patch_size(config) ** 2

    def places(self, image_model: nn.Module) -> Iterator[Place]:
        """See `Adapter`; those inside of all blocks, then after them."""
        config: Any = image_model.config
        heads, head_dim = self.num_heads(config)
        width, condition_dim = heads * head_dim, self.condition_dim(config)
        named = [
            (f"{blocks.name}.{number}", block, blocks)
            for blocks in self.blocks
            for number, block in image_model.get_submodule(blocks.name).named_children()
        ]
        for name in self.time_embeddings(image_model):  # one layer, wherever the time step is embedded
            yield Place(name, ("time_embedding",), condition_dim, layer_name="time_embedding")
        yield Place(
            self.embedding,
            ("patch_in",),
            width,
            in_channels=self.in_channels(image_model),
            patch_size=self.patch_size(config),
            with_others=self.embedding in self.others_at,
        )
        for name, block, blocks in named:
            yield from self._places_inside(name, block, blocks, width)
        for name, _, blocks in named:
            yield Place(
                name,
                ("transformer_block", "modulated_block", "attention"),
                *(width, heads, head_dim),
                answer=blocks.answer,
                with_others=blocks.name in self.others_at,
                condition=blocks.condition,
                condition_dim=None if blocks.shared_condition else condition_dim,
            )
        yield Place(self.last, ("patch_out",), width, with_others=self.last in self.others_at)

    def _places_inside(self, name: str, block: nn.Module, blocks: Blocks, width: int) -> Iterator[Place]:
        """Of one block: its attentions, their queries, the convolutions of its feed-forward."""
        modules = dict(block.named_modules())
        for part in blocks.self_attentions:
            if part in modules:
                where: tuple[Where, ...] = ("every_attention",) if self.joint else ("every_attention", "self_attention")
                yield Place(f"{name}.{part}", where, width, gather=self.gather_frames)
                if not self.joint:
                    yield query_place(f"{name}.{part}", modules[part])
        for part in blocks.cross_attentions:
            if part in modules:
                yield query_place(f"{name}.{part}", modules[part])
        for part in blocks.convolutions:
            channels = plain_module(modules[part]).out_channels
            yield Place(f"{name}.{part}", ("feed_forward",), int(channels))  # type: ignore[arg-type]  # a Conv2d's int

    def time_embeddings(self, image_model: nn.Module) -> list[str]:
        """Names of the modules whose output, (N, condition's D), is added to for the frame rate."""
        return [self.time_embedding]

    def reasons(self, image_model: nn.Module) -> dict[Where, str]:
        """See `Adapter`."""
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
