"""What new temporal layers start with, recorded while torch makes them (see ``inflate.checkpoint.starts``)."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from inflate.checkpoint.starts import SEED, Constant, Start, Stream, Uniform

Makers = Sequence[tuple[str, Callable[[], nn.Module]]]

_MOST_BYTES = 4 << 20  # of all constants, packed
_UNIFORM = torch.ops.aten.uniform_.default


class _Draws(TorchDispatchMode):
    """Notes each ``uniform_`` of float32: where its numbers went, and which of the stream they are."""

    def __init__(self) -> None:
        super().__init__()
        self.place = 0
        self.known = True  # whether nothing else was drawn
        self.last: dict[int, Uniform] = {}  # by where the numbers lie

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._note(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        drawn = args[0]
        if func is not _UNIFORM or drawn.dtype != torch.float32 or drawn.device.type != "cpu" or kwargs:
            self.known = False
            return
        low, high = (*args[1:], *(0.0, 1.0)[len(args) - 1 :])
        self.last[drawn.data_ptr()] = Uniform(self.place, drawn.numel(), low, high)
        self.place += drawn.numel()


@contextmanager
def seeded() -> Iterator[None]:
    """Layers begin as they are recorded to begin; torch's own random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def record_starts(makers: Makers) -> dict[str, Start] | None:
    """What all layers start with, by the names of a temporal file; zeros are left out. torch's own random state stays.

    One layer at a time is in memory. None where that cannot be kept: something else was drawn than ``uniform_`` of
    float32, or the constants are too many.
    """
    draws, stream, starts = _Draws(), Stream(), {}
    size, packed = 0, set[bytes]()
    with seeded():
        for key, make in makers:
            draws.last.clear()
            with draws:
                layer = make()
            if not draws.known:
                return None
            found = _starts_of(layer.state_dict(), draws.last, stream)
            starts |= {f"{key}.{name}": start for name, start in found.items()}
            for start in found.values():
                if isinstance(start, Constant) and start.words not in packed:
                    packed.add(start.words)
                    size += len(start.places) + len(start.words)
            if size > _MOST_BYTES:
                return None
    return starts


def _starts_of(state: Mapping[str, Tensor], drawn: Mapping[int, Uniform], stream: Stream) -> dict[str, Start]:
    """Of one layer. ``stream`` goes on to behind it: what is drawn is drawn again, and compared."""
    found: dict[str, Start] = {}
    candidates = {name: drawn[one.data_ptr()] for name, one in state.items() if one.data_ptr() in drawn}
    for name, start in sorted(candidates.items(), key=lambda one: one[1].first):
        again = BytesIO()
        stream.write(again, start)
        if again.getbuffer() == _bytes_of(state[name]).data:
            found[name] = start
    for name, tensor in state.items():
        content = _bytes_of(tensor)
        if name in found or not content.any():
            continue
        words = np.pad(content, (0, -len(content) % 4)).view(np.uint32)
        places = np.flatnonzero(words).astype(np.int64)
        found[name] = Constant(
            zlib.compress(np.diff(places, prepend=0).tobytes(), 6), zlib.compress(words[places].tobytes(), 6)
        )
    return {name: found[name] for name in state if name in found}


def _bytes_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
