"""What is told of a clip without words or pictures: a class (DiT), or nothing at all."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from inflate.bases.conditioner import Conditioner, Encoding
from inflate.errors import InputError, nearest


class NoConditioner(Conditioner):
    """An unconditional network is told nothing."""

    reads: ClassVar[Literal["nothing"]] = "nothing"

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """Empty."""
        return {}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """Empty."""
        return {}


class LabelConditioner(Conditioner):
    """The number of a class; unconditional is the number after the last one, as DiT was trained."""

    reads: ClassVar[Literal["class"]] = "class"

    @property
    def num_classes(self) -> int:
        """How many classes the network knows."""
        return int(self.network.get("num_embeds_ada_norm") or 1000)

    def names(self) -> dict[str, int]:
        """The classes' names, of which one may have several, as the pipeline's index lists them."""
        found = self.options.get("id2label") or {}
        return {name.strip(): int(number) for number, names in found.items() for name in str(names).split(",")}

    def label(self, text: str) -> int:
        """The class that a text names, by its name or its number.

        Raises:
            InputError: there is no such class.
        """
        text, names = text.strip(), self.names()
        found = int(text) if text.isdecimal() else names.get(text)
        if found is None:
            raise InputError(
                f"This network is told a class, and none is called {text!r}{nearest(text, list(names))}; give a "
                f"class's name or its number from 0 to {self.num_classes - 1}."
            )
        return self._checked(found)

    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """``labels`` (B,), given as numbers, or as texts that name them."""
        numbers = [self.label(text) for text in texts] if labels is None else [self._checked(one) for one in labels]
        return {"labels": torch.tensor(numbers, dtype=torch.long)}

    def unconditional(self, count: int) -> Encoding:
        """The number after the last class."""
        return {"labels": torch.full((count,), self.num_classes, dtype=torch.long)}

    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """As :meth:`Conditioner.arguments`."""
        return {"class_labels": encoding["labels"]}

    def _checked(self, label: int) -> int:
        if not 0 <= int(label) < self.num_classes:
            raise InputError(f"There is no class {label}; this network knows those from 0 to {self.num_classes - 1}.")
        return int(label)
