"""One entry of a scheme: a kind of layer, where it goes, and what it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from inflate.errors import InputError, nearest
from inflate.layers import TemporalLayer, Where

_WHERE_IN_WORDS: dict[Where, str] = {
    "convolution": "after every convolution",
    "last_convolution": "after each residual block",
    "feed_forward": "in each feed-forward",
    "residual_block": "after each spatial one",
    "attention": "after each spatial attention",
    "transformer_block": "in each transformer block",
    "modulated_block": "after each spatial one",
    "self_attention": "in transformer blocks",
    "layer": "after each layer of a block",
    "mid_layer": "in the mid block",
}


@dataclass(frozen=True)
class Placed:
    """A kind of layer at every place of a kind; `options` are what it may be told, by name, those left out as usual."""

    where: Where
    layer: type[TemporalLayer]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        usual, known = self.layer.options, get_args(Where)
        if self.where not in known:
            raise InputError(f"unknown place {self.where!r}{nearest(self.where, known)}; known: {', '.join(known)}")
        for name in self.options:
            if name not in usual:
                raise InputError(
                    f"{self.layer.__name__} has no option {name!r}{nearest(name, tuple(usual))}; it has: "
                    f"{', '.join(usual) or 'none'}"
                )
        object.__setattr__(self, "options", {**usual, **self.options})

    def __str__(self) -> str:
        return f"{self.layer.in_words(self.options)} {_WHERE_IN_WORDS.get(self.where, '')}".strip()


def placed(where: Where, layer: type[TemporalLayer], **options: Any) -> Placed:
    """One layer of a scheme: `layer` at every place `where`."""
    return Placed(where, layer, options)
