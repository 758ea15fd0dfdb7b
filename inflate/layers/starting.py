"""Telling a layer that is still as it started, and so answers its input, from one that has been trained.

Nothing is remembered between calls: a weight may change behind every counter that torch keeps (through ``.data``, a
NumPy view, a captured CUDA graph). A layer names a small tensor of its own, its *witness*, that is zero while the layer
is the identity; only where it is zero are all the weights that matter looked at.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class StartsAsIdentity(ABC):
    """A layer that answers its input, bit for bit, as long as `is_identity` says so."""

    @abstractmethod
    def identity_witness(self) -> object:
        """A small weight (or what took its place) that is zero while the layer is the identity."""

    @abstractmethod
    def is_identity(self) -> bool:
        """Whether every weight that matters is as at the start; looks at the weights, and waits for the device."""


class StartsSilent(StartsAsIdentity):
    """One that adds the answer of projections which start at zero."""

    @abstractmethod
    def silent(self) -> tuple[nn.Module, ...]:
        """Those projections, at least one."""

    def identity_witness(self) -> object:
        """See `StartsAsIdentity`: the bias of the first."""
        return getattr(self.silent()[0], "bias", None)

    def is_identity(self) -> bool:
        """See `StartsAsIdentity`."""
        return all(zero_projection(layer) for layer in self.silent())


def is_plain(weight: object) -> bool:
    """Whether `weight` is a tensor whose numbers can be looked at: not quantised, not offloaded to nowhere."""
    return type(weight) in (Tensor, nn.Parameter) and isinstance(weight, Tensor) and weight.device.type != "meta"


def all_zero(*weights: object) -> bool:
    """Whether every tensor of `weights` is plain and holds zeros only."""
    return all(is_plain(weight) and isinstance(weight, Tensor) and not weight.any() for weight in weights)


def zero_projection(layer: object) -> bool:
    """Whether `layer` is a plain ``nn.Linear`` that answers zero: not a wrapper of PEFT, not a quantised one."""
    return type(layer) is nn.Linear and all_zero(layer.weight) and (layer.bias is None or all_zero(layer.bias))


@torch.no_grad()
def zero_(*layers: nn.Module) -> None:
    """Make projections answer zero: weights and, where there are any, biases."""
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            parameter.zero_()


@torch.no_grad()
def identity_layers(layers: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Those of `layers` that may be left out of a forward pass without gradients: it answers the same bits.

    A layer in training, one that somebody hung hooks on, and one whose weights cannot be looked at is never among them.
    Costs one small operation per device, and a look at all weights of those layers that it leaves in question.
    """
    asked = [(layer, layer.identity_witness()) for layer in layers if isinstance(layer, StartsAsIdentity)]
    found = [(layer, witness) for layer, witness in asked if is_plain(witness) and not layer.training]
    by_kind: dict[tuple[torch.device, torch.dtype], list[tuple[nn.Module, Tensor]]] = {}
    for layer, witness in found:
        assert isinstance(witness, Tensor), "a plain weight is one"
        by_kind.setdefault((witness.device, witness.dtype), []).append((layer, witness.detach()))
    quiet: set[nn.Module] = set()
    for pairs in by_kind.values():
        # One number for each layer, and one wait for the device. A NaN is not zero.
        largest = torch.stack([witness.abs().amax() for _, witness in pairs]).tolist()
        quiet |= {layer for (layer, _), value in zip(pairs, largest, strict=True) if value == 0}
    return frozenset(layer for layer in quiet if not _watched(layer) and layer.is_identity())  # type: ignore[operator]  # checked above


def _watched(layer: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in layer.modules())
