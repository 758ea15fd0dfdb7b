"""DiT (arXiv:2212.09748): classes instead of text, and the time step embedded in every block anew."""

from typing import Any

from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from inflate.adapters.inputs import RandomSource
from inflate.adapters.transformer import Blocks, Transformer
from inflate.errors import InputError


def _condition(block: nn.Module, arguments: dict[str, Any]) -> Tensor:
    """Asked once more, since the embedding is not among what a block takes or answers."""
    embedding = block.get_submodule("norm1.emb")
    return embedding(arguments["timestep"], arguments["class_labels"], hidden_dtype=arguments["hidden_states"].dtype)


class DiT(Transformer):
    """`DiTTransformer2DModel`."""

    image_model_class = DiTTransformer2DModel
    blocks = (Blocks("transformer_blocks", ("attn1",), ("attn2",), condition=_condition),)
    joint = False
    last = "proj_out_2"

    def time_embeddings(self, image_model: nn.Module) -> list[str]:
        """One in every block."""
        blocks = image_model.get_submodule("transformer_blocks")
        return [f"transformer_blocks.{number}.norm1.emb" for number, _ in blocks.named_children()]

    def check_size(self, image_model: nn.Module, height: int, width: int) -> None:
        """Square pictures only."""
        super().check_size(image_model, height, width)
        if height != width:
            raise InputError(f"{type(image_model).__name__} takes square pictures only, got {height} x {width}")

    def conditions(self, image_model: nn.Module) -> tuple[str, ...]:
        """See `Transformer`."""
        return ("class_labels",)

    def random_conditions(self, image_model: Any, source: RandomSource, size: tuple[int, int]) -> dict[str, Any]:
        """A class for each picture."""
        return {"class_labels": source.integers(0, int(image_model.config.num_embeds_ada_norm))}
