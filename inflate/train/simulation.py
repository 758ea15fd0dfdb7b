"""One update of a network without its numbers: which tensors are alive when, and what arithmetic is done.

Every operation of the forward and the backward pass runs on tensors that have a shape, a dtype and a (CPU) device but
no memory (torch's ``FakeTensorMode``), and the storages that live at each moment are added up. What gradient
checkpointing, frozen weights and autocast keep or drop is thereby not estimated but counted; what a kernel allocates
for itself and gives back, and what the allocator holds between two uses, is not seen.
"""

import gc
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Simulated:
    """Bytes alive at the moment of the highest use, beside weights and what outlives an update; and work of an update.

    ``activations``: what the forward pass keeps for the backward pass, as far as it is alive at that moment;
    ``gradients``: of trained parameters; ``transient``: everything else, that is gradients of activations, blocks that
    checkpointing computes again, and results on their way. ``kept`` is all the forward pass keeps, ``all_gradients``
    what is there when the optimizer runs. ``moved``: bytes read and written.
    """

    activations: int
    gradients: int
    transient: int
    kept: int
    all_gradients: int
    flops: int
    moved: int

    @property
    def peak(self) -> int:
        """Bytes at the moment of the highest use."""
        return self.activations + self.gradients + self.transient


def simulate(
    network: nn.Module,
    loss: Callable[[Any], Tensor],
    inputs: Any,
    precision: torch.dtype | None = None,
    like_cuda: bool = False,
    gradients_there: bool = False,
) -> Simulated:
    """Run forward and backward of ``loss(inputs)`` once, on tensors without memory.

    Args:
        network: on the meta device; its parameters and buffers are replaced, so that it is of no other use afterwards.
        loss: calls the network; gives a scalar.
        inputs: tensors on the meta device, nested in dicts and lists.
        precision: of autocast; None for none.
        like_cuda: autocast as on CUDA, where norms are computed in float32.
        gradients_there: gradients of an earlier micro-batch are still there.
    """
    gc.collect()
    gc.freeze()  # so that the collections below look at what is made from here on
    with FakeTensorMode(allow_non_fake_inputs=False), ExitStack() as stack:
        _replace_tensors(network)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if gradients_there:
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        given = tree_map(_without_memory, inputs)
        alive = _Alive([*network.parameters(), *network.buffers()])
        for parameter in trained:
            if parameter.grad is not None:
                alive.note(parameter.grad, _GRADIENT)
            parameter.register_post_accumulate_grad_hook(alive.is_gradient)
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()  # pyright: ignore[reportAttributeAccessIssue]
        stack.enter_context(counter)
        stack.enter_context(alive)
        if like_cuda and precision is not None:
            _norms_in_float32(network)
        with torch.autocast("cpu", precision, precision is not None):
            value = loss(given)
        alive.keep()
        kept = alive.bytes[_KEPT]
        value.backward()
        del value
        at_peak = alive.at_peak
        gc.unfreeze()
        flops = int(counter.get_total_flops())
        return Simulated(
            at_peak[_KEPT], at_peak[_GRADIENT], at_peak[_OTHER], kept, alive.bytes[_GRADIENT], flops, alive.moved
        )


class _NoModules:
    """In the place of the counter's ModuleTracker: its hooks on what each module takes and gives keep some of what
    checkpointing computes again alive until the end, as nothing does in a real update."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_KEPT, _GRADIENT, _OTHER = "activations", "gradients", "transient"


class _Alive(TorchDispatchMode):
    """Adds up the storages that live, by what they are for, and remembers the sums of the highest moment."""

    def __init__(self, not_counted: list[Tensor]) -> None:
        super().__init__()
        self.bytes = {_KEPT: 0, _GRADIENT: 0, _OTHER: 0}
        self.at_peak = dict(self.bytes)
        self.moved = 0
        self.backward = False
        self._collected = 0
        self._kinds: dict[int, str | None] = {}
        self._live: dict[int, weakref.ref[Any]] = {}
        for tensor in not_counted:
            self.note(tensor, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [one for one in tree_flatten(result)[0] if isinstance(one, Tensor)]
        new = [self.note(one, _OTHER) for one in made]
        if any(new) or func._schema.name.endswith("_"):
            read = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
            self.moved += sum(one.numel() * one.element_size() for one in (*read, *made))
            if sum(self.bytes.values()) > sum(self.at_peak.values()):
                self._drop_cycles()
            if sum(self.bytes.values()) > sum(self.at_peak.values()):
                self.at_peak = dict(self.bytes)
        return result

    def _drop_cycles(self) -> None:
        """Free tensors that only a cycle holds: each block that checkpointing computes again leaves one behind here,
        through the frames of the exception that stops it."""
        if self.backward and sum(self.bytes.values()) > 1.02 * self._collected:
            gc.collect()
            self._collected = sum(self.bytes.values())

    def note(self, tensor: Tensor, kind: str | None) -> bool:
        """Count a tensor's storage; whether it was new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds:
            return False
        size = storage.nbytes()
        self._kinds[key] = kind
        self._live[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        if kind is not None:
            self.bytes[kind] += size
        return True

    def _forget(self, key: int, size: int) -> None:
        del self._live[key]
        kind = self._kinds.pop(key)
        if kind is not None:
            self.bytes[kind] -= size

    def is_gradient(self, parameter: Tensor) -> None:
        """A parameter has its gradient now."""
        assert parameter.grad is not None
        self._move(parameter.grad.untyped_storage(), _GRADIENT)

    def keep(self) -> None:
        """What lives now, at the end of the forward pass, is kept for the backward pass."""
        kept = min(self.bytes[_OTHER], self.at_peak[_OTHER])
        self.at_peak[_KEPT] += kept
        self.at_peak[_OTHER] -= kept
        self.backward = True
        for reference in list(self._live.values()):
            storage = reference()
            if storage is not None and self._kinds[storage._cdata] == _OTHER:
                self._move(storage, _KEPT)

    def _move(self, storage: Any, kind: str) -> None:
        before = self._kinds.get(storage._cdata)
        if before is None or before == kind:
            return
        self.bytes[before] -= storage.nbytes()
        self.bytes[kind] += storage.nbytes()
        self._kinds[storage._cdata] = kind


def _norms_in_float32(network: nn.Module) -> None:
    """Give norms float32 copies of lower precisions, as CUDA's autocast does and that of CPUs does not."""
    for module in network.modules():
        if type(module) in (nn.GroupNorm, nn.LayerNorm):
            module.forward = partial(_norm_in_float32, module)


def _norm_in_float32(module: Any, value: Tensor) -> Tensor:
    weight, bias = (None if one is None else one.float() for one in (module.weight, module.bias))
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(value.float(), module.num_groups, weight, bias, module.eps)
    return functional.layer_norm(value.float(), module.normalized_shape, weight, bias, module.eps)


def _without_memory(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty(value.shape, dtype=value.dtype, device="cpu", requires_grad=value.requires_grad)


def _replace_tensors(network: nn.Module) -> None:
    """Put tensors without memory in the places of parameters and buffers on the meta device."""
    made: dict[int, Tensor] = {}
    for module in network.modules():
        places: tuple[Mapping[str, Any], ...] = (module._parameters, module._buffers)
        for place in places:
            for name, tensor in place.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    made[id(tensor)] = (
                        nn.Parameter(fake, requires_grad=tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else fake
                    )
                place[name] = made[id(tensor)]  # pyright: ignore[reportIndexIssue, reportArgumentType]  # torch's dicts
