"""What a network is told about a clip: one object for training and for sampling, so that the two cannot differ."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from inflate.bases.parts import part_class, parts_fingerprint, read_part
from inflate.errors import InputError

Encoding = dict[str, Tensor]
"""Named tensors of first size B: all that :meth:`Conditioner.arguments` needs, and what a cache keeps."""


class Conditioner(ABC):
    """The encoders of one family and how its network is told what they say.

    Everything is encoded one by one, so that an encoding depends on nothing but its own text or picture, in no bit.
    """

    reads: ClassVar[Literal["text", "image", "class", "nothing"]]
    needs: ClassVar[tuple[str, ...]] = ()  # roles of the parts it is made of
    takes: ClassVar[tuple[str, ...]] = ()  # roles of those it may do without

    def __init__(
        self,
        network: Mapping[str, Any],
        parts: Mapping[str, Path] | None = None,
        components: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        variant: str | None = None,
    ) -> None:
        """Of the encoders' folders, which :meth:`load` reads, or of encoders that are there already.

        Args:
            network: the network's config.
            parts: folder of each part by role; those of other roles are left alone.
            components: the encoders themselves by role.
            options: what a pipeline's index says beside its parts.
            variant: of the weights, such as "fp16".
        """
        roles = (*self.needs, *self.takes)
        self.network, self.options, self.variant = dict(network), dict(options or {}), variant
        self.parts = {role: folder for role, folder in (parts or {}).items() if role in roles}
        self.components = {role: part for role, part in (components or {}).items() if role in roles}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the encoders into memory, onto ``device`` as ``dtype``; what is there already is moved at most.

        Raises:
            InputError: a part is missing or damaged.
        """
        for role in self.needs:
            if role not in self.components and role not in self.parts:
                raise InputError(f"There is no {role!r}, which the network's condition is made with; name its folder.")
        for role, folder in self.parts.items():
            if role not in self.components:
                self.components[role] = self.read(role, folder, dtype)
        for component in self.components.values():
            if isinstance(component, torch.nn.Module):
                if component.dtype != dtype:
                    component.to(dtype=dtype)
                component.to(device=device).eval()

    def read(self, role: str, folder: Path, dtype: torch.dtype) -> Any:
        """Read one part; overridden where it is of our own kind."""
        return read_part(folder, *part_class(folder), dtype, self.variant)

    def release(self) -> None:
        """Let go of encoders that :meth:`load` can read again; encodings go on to be of use."""
        for role in self.parts:
            self.components.pop(role, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def fingerprint(self) -> str:
        """Of the encoders' files and of what is done before and after them; nothing is loaded."""
        return parts_fingerprint(self.parts, type(self).__name__, *self.preprocessing(), self.variant)

    def preprocessing(self) -> tuple[str, ...]:
        """What an encoding depends on beside files, in words for the fingerprint."""
        return ()

    @abstractmethod
    def encode(
        self, texts: Sequence[str], pictures: Tensor | None = None, labels: Sequence[int] | None = None
    ) -> Encoding:
        """What the network is told of B clips.

        Args:
            texts: B, for families that read text; "" for each where an image embedding's text is not read.
            pictures: (B, 3, H, W) in [-1, 1], for families that read an image embedding.
            labels: B classes, for families that read those.
        """

    def unconditional(self, count: int) -> Encoding:
        """The other branch of classifier-free guidance, ``count`` times: that of the empty text by default."""
        return {name: value.expand(count, *value.shape[1:]) for name, value in self.encode([""]).items()}

    @abstractmethod
    def arguments(self, encoding: Encoding, height: int, width: int, guidance: float | None = None) -> dict[str, Any]:
        """The network's own keyword arguments, for pictures of ``height`` x ``width`` pixels; needs no encoder.

        ``guidance`` is what a network with guidance in its weights (FLUX) is told; others take none.
        """


def drop(encoding: Encoding, unconditional: Encoding, dropped: Tensor) -> Encoding:
    """``encoding`` with the rows where ``dropped`` (B,) is True replaced by those of ``unconditional``.

    The latter has as many rows, or one for all.
    """
    if set(encoding) != set(unconditional):
        raise InputError("An encoding and its unconditional one must be of the same conditioner.")
    made = {}
    for name, value in encoding.items():
        rows = dropped.to(value.device).reshape(-1, *[1] * (value.ndim - 1))
        made[name] = torch.where(rows, unconditional[name].to(value), value)
    return made


def joined(*encodings: Encoding) -> Encoding:
    """Encodings of one conditioner one behind the other: unconditional and conditional, as guidance wants them."""
    return {name: torch.cat([one[name].to(encodings[-1][name]) for one in encodings]) for name in encodings[0]}
