"""Two fingerprints of an image model: of its architecture, which temporal weights need, and of its very weights."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from inflate.checkpoint.source import Weights, shapes_of

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLED = "sampled-"  # how fingerprints of samples begin; those of all bytes are 64 hexadecimal digits
_SAMPLE_BYTES = 1 << 12
_CHUNK_BYTES = 1 << 22


def architecture_fingerprint(image_model: Any) -> str:
    """SHA-256 over the sorted names and shapes of an image model's weights; values, dtype and device do not matter."""
    return shapes_fingerprint(shapes_of(image_model))


def shapes_fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """As :func:`architecture_fingerprint`, of the shapes by name."""
    lines = sorted(f"{name} {shape}\n" for name, shape in shapes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_fingerprint(weights: Weights) -> str:
    """``sampled-`` and the SHA-256 over the sorted tensors of the files: name, dtype, shape and samples of the bytes.

    Samples are 4 KiB from the start, the middle and the end of each tensor, so that it takes no time for a checkpoint
    of any size. What training, merging or another number format change is in every part of a tensor.
    """
    return _SAMPLED + _digest(weights, sampled=True)


def has_fingerprint(weights: Weights, fingerprint: str) -> bool:
    """Whether ``fingerprint`` is that of the weights; also one of all bytes, as earlier versions wrote them."""
    sampled = fingerprint.startswith(_SAMPLED)
    return _digest(weights, sampled) == fingerprint.removeprefix(_SAMPLED)


def tensors_fingerprint(tensors: "Mapping[str, Tensor]") -> str:
    """What `weights_fingerprint` would say of a safetensors file with these tensors."""
    from safetensors.torch import save

    digest = hashlib.sha256()
    for name in sorted(tensors):
        content = save({name: tensors[name].contiguous()})
        start = 8 + int.from_bytes(content[:8], "little")
        digest.update(f"{name} {json.loads(content[8:start])[name]['dtype']} {tuple(tensors[name].shape)}\n".encode())
        for first, last in _samples(start, len(content)):
            digest.update(memoryview(content)[first:last])
    return _SAMPLED + digest.hexdigest()


def _digest(weights: Weights, sampled: bool) -> str:
    digest = hashlib.sha256()
    entries = sorted(
        (name, tensor, header.path) for header in weights.headers for name, tensor in header.tensors.items()
    )
    with ExitStack() as stack:
        files = {header.path: stack.enter_context(open(header.path, "rb")) for header in weights.headers}
        for name, tensor, path in entries:
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            parts = _samples(tensor.start, tensor.end) if sampled else [(tensor.start, tensor.end)]
            for start, end in parts:
                files[path].seek(start)
                while start < end:
                    chunk = files[path].read(min(end - start, _CHUNK_BYTES))
                    digest.update(chunk)
                    start += len(chunk)
    return digest.hexdigest()


def _samples(start: int, end: int) -> list[tuple[int, int]]:
    """What is looked at of the bytes from ``start`` to ``end``: all of them, if they are few."""
    if end - start <= 3 * _SAMPLE_BYTES:
        return [(start, end)]
    middle = (start + end - _SAMPLE_BYTES) // 2
    return [(first, first + _SAMPLE_BYTES) for first in (start, middle, end - _SAMPLE_BYTES)]
